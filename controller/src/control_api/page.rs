//! Long lists in pages. A page token is the key of the last item that was returned; the next page begins after it, so
//! that items which come and go between two pages neither repeat nor hide others.

use fleetknock_proto::{limits, status as refuse};
use tonic::Status;

/// Which page is asked for.
pub(crate) struct Page<'a> {
    size: usize,
    after: &'a str,
}

impl<'a> Page<'a> {
    pub(crate) fn parse(size: u32, token: &'a str) -> Result<Self, Status> {
        let size = match usize::try_from(size).unwrap_or(usize::MAX) {
            0 => limits::PAGE_DEFAULT,
            size if size <= limits::PAGE_MAX => size,
            _ => {
                let reason =
                    format!("must be from 1 to {}, or 0 for {}", limits::PAGE_MAX, limits::PAGE_DEFAULT);
                return Err(refuse::invalid("page_size", reason));
            }
        };
        if token.len() > 1_024 {
            return Err(refuse::invalid("page_token", "this is not a token that a list returned"));
        }
        Ok(Self { size, after: token })
    }

    /// The items of this page, and the token of the next one or nothing. `items` come ordered by their keys.
    pub(crate) fn cut<T>(&self, items: impl Iterator<Item = (String, T)>) -> (Vec<T>, String) {
        self.cut_of_more(items, false)
    }

    /// The same of items after which there may be `more`.
    pub(crate) fn cut_of_more<T>(
        &self,
        items: impl Iterator<Item = (String, T)>,
        more: bool,
    ) -> (Vec<T>, String) {
        let mut rest =
            items.skip_while(|(key, _)| !self.after.is_empty() && key.as_str() <= self.after).peekable();
        let mut page = Vec::new();
        let mut last = String::new();
        while page.len() < self.size
            && let Some((key, item)) = rest.next()
        {
            page.push(item);
            last = key;
        }
        let more = more || rest.peek().is_some();
        (page, if more { last } else { String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_a_list_once() {
        let keys = ["a", "b", "c", "d", "e"];
        for size in 1..=6 {
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let (items, next) =
                    Page::parse(size, &token).unwrap().cut(keys.iter().map(|key| ((*key).to_owned(), *key)));
                assert!(items.len() <= size as usize);
                seen.extend(items);
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            assert_eq!(seen, keys, "{size}");
        }
    }

    #[test]
    fn an_item_that_goes_between_two_pages_hides_no_other() {
        let page = |keys: &[&'static str], token: &str| {
            Page::parse(2, token)
                .unwrap()
                .cut(keys.iter().map(|key| ((*key).to_owned(), *key)).collect::<Vec<_>>().into_iter())
        };
        let (first, token) = page(&["a", "b", "c", "d"], "");
        assert_eq!(first, ["a", "b"]);
        assert_eq!(page(&["a", "c", "d"], &token).0, ["c", "d"]);
    }

    #[test]
    fn a_page_is_bounded() {
        assert!(Page::parse(1_001, "").is_err());
        assert!(Page::parse(1, &"x".repeat(2_000)).is_err());
    }
}
