//! The dashboard's files, which are part of the program. They hold nothing of the fleet: everybody may have them.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits of a file's hash that tell it from its next version.
const TAG: usize = 32;

/// One file.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// What it holds.
    pub bytes: &'static [u8],
}

/// Makes a table of scripts and the other files.
macro_rules! assets {
    ($($path:literal $kind:literal $file:literal,)*; $($script:literal,)*) => {
        &[
            $(Asset { path: $path, kind: $kind, bytes: include_bytes!(concat!("assets/", $file)) },)*
            $(Asset {
                path: concat!("/", $script, ".js"),
                kind: "text/javascript; charset=utf-8",
                bytes: include_bytes!(concat!("assets/", $script, ".js")),
            },)*
        ]
    };
}

/// All files.
pub const ASSETS: &[Asset] = assets! {
    "/" "text/html; charset=utf-8" "index.html",
    "/app.css" "text/css; charset=utf-8" "app.css",
    "/theme.css" "text/css; charset=utf-8" "theme.css",
    "/icon.svg" "image/svg+xml" "icon.svg",
    ;
    "actions",
    "api",
    "app",
    "board",
    "chart",
    "dom",
    "explain",
    "logic",
    "pages",
    "parts",
    "store",
    "tables",
    "theme",
};

impl Asset {
    /// Tells this version of the file from every other (RFC 9110 section 8.8.3).
    pub fn tag(&self) -> String {
        let hash = HEXLOWER.encode(&Sha256::digest(self.bytes));
        format!("\"{}\"", &hash[..TAG])
    }
}

/// The file of a path; not again when the asker has this version of it.
pub(super) async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == uri.path()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = asset.tag();
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    let known = known.filter_map(|value| value.to_str().ok()).any(|tags| tags.contains(&tag));
    let Ok(tag) = HeaderValue::from_str(&tag) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    // Asked for again each time, and sent when there is another one: a dashboard is never that of a former version.
    let about = [(header::ETAG, tag), (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    if known {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, [(header::CONTENT_TYPE, asset.kind)], asset.bytes).into_response()
}
