//! The dashboard at `/`: a page for browsers, compiled into the program. It holds no data; what it shows it gets from the other calls, with
//! the rights of its user.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cartwheel_core::cluster::membership::View;

use super::error::ApiError;
use super::headers;

const ASSETS_PATH: &str = "/assets/";

/// The page runs its own script and style and makes nothing of text. It asks its own node; of the nodes in `OTHERS` it finds out only whether
/// they answer, because a browser shows it none of their responses.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'OTHERS; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// How many other nodes a page may go on to.
const OTHERS_MAX: usize = 32;

/// A file of the page.
struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

const PAGE: Asset = Asset {
    name: "index.html",
    media_type: "text/html; charset=utf-8",
    bytes: include_bytes!("../../dashboard/built/index.html"),
};

const ASSETS: [Asset; 3] = [
    Asset {
        name: "dashboard.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../dashboard/built/dashboard.js"),
    },
    Asset {
        name: "dashboard.css",
        media_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../../dashboard/built/dashboard.css"),
    },
    Asset { name: "icon.svg", media_type: "image/svg+xml", bytes: include_bytes!("../../dashboard/built/icon.svg") },
];

/// The entity tag of all files: they are made together.
static ETAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = blake3::Hasher::new();
    for Asset { bytes, .. } in ASSETS.iter().chain([&PAGE]) {
        hasher.update(bytes);
    }
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hasher.finalize().as_bytes()[..12]))
});

/// The page.
pub(super) fn page(view: &View, headers: &HeaderMap) -> Response {
    PAGE.response(headers, &policy(view.members().map(|known| known.member.http_addr.as_str())))
}

/// A file that the page loads.
pub(super) async fn asset(uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let asset = ASSETS.iter().find(|asset| uri.path().strip_prefix(ASSETS_PATH) == Some(asset.name));
    let asset = asset.ok_or_else(|| ApiError::not_found(format!("the dashboard has no file {}", uri.path())))?;
    Ok(asset.response(&headers, "default-src 'none'; frame-ancestors 'none'"))
}

/// The policy for a page that may go on to the nodes at these addresses. A policy has no form for an IPv6 address.
fn policy<'a>(addresses: impl Iterator<Item = &'a str>) -> String {
    let is_in_host = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
    let is_host =
        |address: &&str| !address.is_empty() && address.matches(':').count() <= 1 && address.chars().all(is_in_host);
    let others: Vec<String> = addresses.filter(is_host).take(OTHERS_MAX).map(|address| format!(" {address}")).collect();
    POLICY.replace("OTHERS", &others.concat())
}

/// Whether a request of `/` comes from a browser that is to show a page: only these name HTML among what they accept.
pub(super) fn is_for_browser(headers: &HeaderMap) -> bool {
    headers::accepts(headers, "text/html")
}

impl Asset {
    fn response(&self, headers: &HeaderMap, policy: &str) -> Response {
        // Browsers ask each time whether a file has changed, so that a page never mixes files of two versions of the node.
        let headers_out = [
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::CONTENT_TYPE, self.media_type),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::VARY, "Accept"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ];
        let etag = HeaderValue::from_str(&ETAG).ok().map(|etag| [(header::ETAG, etag)]);
        let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| {
            let mut tags = known.to_str().unwrap_or_default().split(',').map(|tag| tag.trim());
            tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == *ETAG)
        });
        match is_known {
            true => (StatusCode::NOT_MODIFIED, etag, headers_out).into_response(),
            false => (etag, headers_out, self.bytes).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;
    use std::fs;
    use std::path::PathBuf;

    use md5::{Digest as _, Md5};

    use super::*;

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dashboard")
    }

    /// The files that `build.mjs` reads, each with the MD5 of its bytes.
    fn sources() -> BTreeMap<String, String> {
        let mut sources = BTreeMap::new();
        let top = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"];
        let mut files: Vec<String> = top.map(str::to_owned).to_vec();
        for entry in fs::read_dir(root().join("src")).unwrap() {
            files.push(format!("src/{}", entry.unwrap().file_name().into_string().unwrap()));
        }
        for file in files {
            let hash = Md5::digest(fs::read(root().join(&file)).unwrap());
            sources.insert(file, hash.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        sources
    }

    #[test]
    fn the_built_files_are_those_of_the_sources() {
        let mut expected = String::new();
        for (file, hash) in sources() {
            writeln!(expected, "{hash}  {file}").unwrap();
        }
        let manifest = fs::read_to_string(root().join("built/sources.md5")).unwrap();
        assert_eq!(manifest, expected, "the dashboard's sources have changed: run `just dashboard`");
    }

    #[test]
    fn the_policy_names_the_other_nodes_and_nothing_that_is_no_address() {
        let of = |addresses: &[&str]| policy(addresses.iter().copied());
        let sources =
            |policy: &str| policy.split("connect-src 'self'").nth(1).unwrap().split(';').next().unwrap().to_owned();
        assert_eq!(sources(&of(&["127.0.0.1:8081", "node-2.example:80"])), " 127.0.0.1:8081 node-2.example:80");
        assert_eq!(sources(&of(&["*:80", "[::1]:80", "a; script-src *", "a b", "", "'self'"])), "");
        assert_eq!(sources(&of(&["a:1"; 100])).matches("a:1").count(), OTHERS_MAX);
        assert!(!of(&[]).contains("unsafe") && !of(&[]).contains('*'));
    }

    #[test]
    fn the_built_files_load_nothing_from_elsewhere_and_evaluate_no_text() {
        let page = std::str::from_utf8(PAGE.bytes).unwrap();
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" on"), "inline code: {page}");
        let loaded = page.split(['"', '\'']).filter(|text| text.starts_with("/assets/"));
        let loaded: Vec<&str> = loaded.map(|path| path.trim_start_matches("/assets/")).collect();
        for asset in &ASSETS {
            assert!(loaded.contains(&asset.name), "{}", asset.name);
            let text = std::str::from_utf8(asset.bytes).unwrap();
            // `require-trusted-types-for` makes a browser refuse markup made from text.
            for bad in ["document.write", "eval(", "new Function", "url(", "@import"] {
                assert!(!text.contains(bad), "{} has {bad}", asset.name);
            }
            // Namespaces are names, not places.
            let text = text.replace("http://www.w3.org/", "");
            assert!(!text.contains("https://"), "{}", asset.name);
        }
        assert!(ASSETS.iter().map(|asset| asset.bytes.len()).sum::<usize>() < 200_000);
    }
}
