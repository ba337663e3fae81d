//! What has the form of a cluster's token.

use super::*;

#[test]
fn a_token_of_a_cluster_is_told_from_ours_by_its_form() {
    for (token, is_one) in [
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln-_AZ09", true),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.", false),
        ("eyJhbGciOiJSUzI1NiJ9..c2ln", false),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0", false),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln.more", false),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2l+", false),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIi OiJ4In0.c2ln", false),
        ("abc.def.ghi", false),
        ("fke_0123456789abcdef_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyputcub", false),
        ("..", false),
        ("", false),
    ] {
        assert_eq!(has_form(token), is_one, "{token}");
    }
}
