//! The example of the module documentation, the rules one by one, and the vectors of AWS.

use std::fs;
use std::path::Path;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::*;

const TOKEN: &str = "IQoJb3JpZ2luX2VjEXAMPLETOKEN==";
const EXAMPLE: Secrets<'_> = Secrets {
    access_key_id: "AKIAIOSFODNN7EXAMPLE",
    secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    session_token: None,
};
const EXAMPLE_TIME: &str = "2026-01-15T12:34:56Z";
const EXAMPLE_HEADERS: [(&str, &str); 2] =
    [("X-Amz-Target", "Logs_20140328.PutLogEvents"), ("Content-Type", "application/x-amz-json-1.1")];
const EXAMPLE_BODY: &str = "{\"logGroupName\":\"cruddur\",\"logStreamName\":\"backend/1\",\"logEvents\":[{\"timestamp\":1768480496123,\"message\":\"127.0.0.1 GET http /api/activities/home? 200 ✓\"}]}";
const EXAMPLE_CANONICAL_REQUEST: &str = "POST
/

content-type:application/x-amz-json-1.1
host:logs.us-east-1.amazonaws.com
x-amz-date:20260115T123456Z
x-amz-target:Logs_20140328.PutLogEvents

content-type;host;x-amz-date;x-amz-target
ba5f59a882e32373e847e735a646cf66bc218649f0cd9e15236cd27164b83e57";
const EXAMPLE_AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260115/us-east-1/logs/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=79dcbc6b5f4f0ed000445a2a2ca8e8dd9cbaf8f4ed19deac142c029841d4f5f0";

fn at(time: &str) -> SystemTime {
    DateTime::parse_from_rfc3339(time).unwrap().into()
}

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn example_signer() -> Signer {
    Signer::new("us-east-1", "logs")
}

fn example_request(headers: &[(String, String)]) -> SigningInput<'_> {
    let (host, body) = ("logs.us-east-1.amazonaws.com", EXAMPLE_BODY.as_bytes());
    SigningInput { method: "POST", host, path: "/", normalize_path: true, query: &[], headers, body }
}

/// Signs the example of the module head, at another time or with other secrets.
fn sign_example(signer: &mut Signer, secrets: &Secrets<'_>, time: &str) -> Signed {
    signer.sign(&example_request(&owned(&EXAMPLE_HEADERS)), secrets, at(time))
}

#[test]
fn the_example_of_the_module_head_is_right_to_the_byte() {
    assert_eq!(EXAMPLE_BODY.len(), 157);
    assert_eq!(EXAMPLE_CANONICAL_REQUEST.len(), 257);
    let signed = sign_example(&mut example_signer(), &EXAMPLE, EXAMPLE_TIME);
    assert_eq!(signed.canonical_request, EXAMPLE_CANONICAL_REQUEST);
    let hash = "bd8f2755bb470a3b30f1a22793f966f6a9618d7b711b1c8d2974d3660bbf3c9d";
    let scope = "20260115/us-east-1/logs/aws4_request";
    assert_eq!(signed.string_to_sign, format!("AWS4-HMAC-SHA256\n20260115T123456Z\n{scope}\n{hash}"));
    assert_eq!(signed.signature, "79dcbc6b5f4f0ed000445a2a2ca8e8dd9cbaf8f4ed19deac142c029841d4f5f0");
    assert_eq!(signed.authorization, EXAMPLE_AUTHORIZATION);
    let headers = [("x-amz-date", "20260115T123456Z"), ("authorization", EXAMPLE_AUTHORIZATION)];
    assert_eq!(signed.headers(), owned(&headers));
}

#[test]
fn each_key_of_the_chain_is_the_one_of_the_example() {
    let chain = key_chain(EXAMPLE.secret_access_key, "20260115", "us-east-1", "logs");
    let keys = [
        "1a9ea371339bd8ea0506fe892d9f3845c0f06db510a90bc06298eb431fbf181d",
        "813cd0c034c90ab909a8eca6d3ce926ca5c284b443709f0024a965bb7d8f31d5",
        "2e51829660278165972d421c21292dfe9c429813b62187e4c87efde39f43abf8",
        "ab92bbc8306db05fa57587041dab7ea52b3b7f169f2059c9835665c44b4fa78a",
    ];
    assert_eq!(chain.map(|key| hex(key.as_ref())), keys);
}

#[test]
fn a_session_token_is_signed_and_sent_but_not_shown() {
    let secrets = Secrets { session_token: Some(TOKEN), ..EXAMPLE };
    let signed = sign_example(&mut example_signer(), &secrets, EXAMPLE_TIME);
    assert_eq!(signed.signature, "938e1f5bfc9d073afcfd2e8860254c052277630d623602ee10186c00f4a05635");
    let hash = "945126043b73796863979b050396f071cbe80bc1bc533de2bcc32972327f26eb";
    assert!(signed.string_to_sign.ends_with(hash), "{}", signed.string_to_sign);
    assert!(signed.headers().contains(&(X_AMZ_SECURITY_TOKEN.to_owned(), TOKEN.to_owned())));

    let real = EXAMPLE_CANONICAL_REQUEST
        .replace("\nx-amz-target:", &format!("\nx-amz-security-token:{TOKEN}\nx-amz-target:"))
        .replace(";x-amz-target", ";x-amz-security-token;x-amz-target");
    assert_eq!((real.len(), sha256(real.as_bytes()).as_str()), (330, hash));
    assert_eq!(signed.canonical_request, real.replace(TOKEN, "(30 bytes, not shown)"));
}

#[test]
fn the_signing_key_is_kept_for_a_day_and_a_secret() {
    let mut signer = example_signer();
    let right = sign_example(&mut signer, &EXAMPLE, EXAMPLE_TIME).signature;
    // A wrong key in the cache shows whether the signer uses the cache.
    let spoil = |signer: &mut Signer| signer.key.as_mut().unwrap().key = hmac::Key::new(HMAC_SHA256, b"wrong");
    spoil(&mut signer);
    assert_ne!(sign_example(&mut signer, &EXAMPLE, EXAMPLE_TIME).signature, right, "not kept");
    assert_ne!(sign_example(&mut signer, &EXAMPLE, EXAMPLE_TIME).signature, right, "not kept for a third time");
    for (secret, time) in [
        ("another secret", EXAMPLE_TIME),
        (EXAMPLE.secret_access_key, EXAMPLE_TIME),
        (EXAMPLE.secret_access_key, "2026-01-16T12:34:56Z"),
        (EXAMPLE.secret_access_key, EXAMPLE_TIME),
    ] {
        spoil(&mut signer);
        let secrets = Secrets { secret_access_key: secret, ..EXAMPLE };
        let new = sign_example(&mut example_signer(), &secrets, time).signature;
        assert_eq!(sign_example(&mut signer, &secrets, time).signature, new, "{secret} {time}");
    }
}

#[test]
fn a_new_id_or_token_with_the_same_secret_is_used_at_once() {
    let mut signer = example_signer();
    sign_example(&mut signer, &EXAMPLE, EXAMPLE_TIME);
    let secrets = Secrets { access_key_id: "ASIANEW", session_token: Some("new"), ..EXAMPLE };
    let signed = sign_example(&mut signer, &secrets, EXAMPLE_TIME);
    assert!(signed.authorization.contains("Credential=ASIANEW/"), "{}", signed.authorization);
    assert!(signed.headers().contains(&(X_AMZ_SECURITY_TOKEN.to_owned(), "new".to_owned())));
}

#[test]
fn at_midnight_time_scope_and_key_change_together() {
    let mut signer = example_signer();
    for (time, x_amz_date) in
        [("2026-12-31T23:59:59.999Z", "20261231T235959Z"), ("2027-01-01T00:00:00Z", "20270101T000000Z")]
    {
        let signed = sign_example(&mut signer, &EXAMPLE, time);
        let date = &x_amz_date[..8];
        assert_eq!(signed.x_amz_date, x_amz_date);
        assert!(signed.canonical_request.contains(&format!("\nx-amz-date:{x_amz_date}\n")));
        assert!(signed.string_to_sign.contains(&format!("\n{x_amz_date}\n{date}/us-east-1/logs/aws4_request\n")));
        assert!(signed.authorization.contains(&format!("/{date}/us-east-1/logs/aws4_request, ")));
        let [.., key] = key_chain(EXAMPLE.secret_access_key, date, "us-east-1", "logs");
        assert_eq!(signed.signature, hex(hmac::sign(&hmac_key(key), signed.string_to_sign.as_bytes()).as_ref()));
    }
}

#[test]
fn no_secret_is_in_any_debug_text() {
    let secrets = Secrets { session_token: Some(TOKEN), ..EXAMPLE };
    let mut signer = example_signer();
    let signed = sign_example(&mut signer, &secrets, EXAMPLE_TIME);
    let headers = signed.headers();
    let request = example_request(&headers);
    let shown = format!("{secrets:?} {signer:?} {signed:?} {request:?} {secrets:#?} {signer:#?} {signed:#?}");
    let public = [&signed.authorization, &signed.x_amz_date, &signed.canonical_request, &signed.string_to_sign];
    let text = public.into_iter().fold(shown, |text, part| text + part);
    assert!(text.contains("AKIAIOSFODNN7EXAMPLE") && text.contains("region: \"us-east-1\""), "{text}");

    let chain = key_chain(EXAMPLE.secret_access_key, "20260115", "us-east-1", "logs");
    let fingerprint = sha256(EXAMPLE.secret_access_key.as_bytes());
    let bytes = chain.iter().map(|key| format!("{:?}", key.as_ref()));
    let hexes = chain.iter().map(|key| hex(key.as_ref()));
    let words = [EXAMPLE.secret_access_key, TOKEN, &fingerprint].map(str::to_owned);
    for secret in words.into_iter().chain(bytes).chain(hexes) {
        assert!(!text.contains(&secret), "{secret} in {text}");
    }
}

#[test]
fn headers_of_the_connection_and_those_of_an_earlier_try_are_not_signed() {
    let mut headers = owned(&EXAMPLE_HEADERS);
    headers.extend(owned(&NEVER_SIGNED.map(|name| (name, "whatever"))));
    headers.extend(owned(&[("User-Agent", "cruddur")]));
    let signed = example_signer().sign(&example_request(&headers), &EXAMPLE, at(EXAMPLE_TIME));
    assert_eq!(signed.authorization, EXAMPLE_AUTHORIZATION);
}

#[test]
fn a_path_is_encoded_once_more_than_it_is_sent() {
    // This example is from the specification.
    assert_eq!(canonical_uri(&normalized("/documents%20and%20settings/")), "/documents%2520and%2520settings/");
    assert_eq!(canonical_uri(&normalized("/documents and settings/")), "/documents%20and%20settings/");
    for path in ["", "/"] {
        assert_eq!(canonical_uri(path), "/");
        assert_eq!(canonical_uri(&normalized(path)), "/");
    }
    assert_eq!(canonical_uri(&normalized("/a//./b/../c/")), "/a/c/");
    assert_eq!(canonical_uri(&normalized("/../../a")), "/a");
}

#[test]
fn a_query_is_sorted_by_name_then_value_after_encoding() {
    assert_eq!(canonical_query(&[("b", "2"), ("b", "1"), ("a", "")]), "a=&b=1&b=2");
    assert_eq!(canonical_query(&[("a b", "c/d+e=f&g"), ("é", "~")]), "%C3%A9=~&a%20b=c%2Fd%2Be%3Df%26g");
    // Encoded, `{` begins with `%` and comes before `a`.
    assert_eq!(canonical_query(&[("a", "1"), ("{", "2")]), "%7B=2&a=1");
}

/// Checks the test vectors that AWS publishes, one folder each. Their LICENSE is in the same
/// folder.
#[test]
fn all_published_vectors_come_out_right() {
    // Name and reason of each vector that is skipped: none at present, and at most two.
    const SKIPPED: [(&str, &str); 0] = [];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sigv4");
    let folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let (skipped, used): (Vec<_>, Vec<_>) =
        folders.partition(|path| SKIPPED.iter().any(|(name, _)| path.ends_with(name)));
    used.iter().for_each(|folder| check_vector(folder));
    assert!(used.len() >= 36 && used.len() + skipped.len() == 38, "used {used:?}, skipped {SKIPPED:?}");
}

fn check_vector(folder: &Path) {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let context: Value = serde_json::from_str(&read("context.json")).unwrap();
    let text = |pointer: &str| context.pointer(pointer).and_then(Value::as_str);
    let secrets = Secrets {
        access_key_id: text("/credentials/access_key_id").unwrap(),
        secret_access_key: text("/credentials/secret_access_key").unwrap(),
        // If the token is to be omitted, it is sent without being signed. The signer must not see
        // it.
        session_token: text("/credentials/token").filter(|_| context["omit_session_token"] != true),
    };

    // The requests end their lines with a line feed only, and fold long values. The path is escaped
    // in some (get-space-normalized) and plain in others (get-space-unnormalized). It always means
    // the plain path.
    let raw = read("request.txt");
    let (head, body) = raw.split_once("\n\n").unwrap_or((&raw, ""));
    let head = head.trim_end().replace("\n ", " ");
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap().strip_suffix(" HTTP/1.1").unwrap().split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let pairs: Vec<_> = pairs.map(|(name, value)| (decode(name), decode(value))).collect();
    let mut headers: Vec<_> = lines.map(|line| line.split_once(':').unwrap()).collect();
    let host = headers.iter().position(|(name, _)| *name == "Host").unwrap();
    let (_, host) = headers.remove(host);
    let body_hash = sha256(body.as_bytes());
    if context["sign_body"] == true {
        headers.push(("X-Amz-Content-Sha256", &body_hash));
    }
    let request = SigningInput {
        method,
        host,
        path: &decode(path),
        normalize_path: context["normalize"] == true,
        query: &pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(),
        headers: &owned(&headers),
        body: body.as_bytes(),
    };

    let mut signer = Signer::new(text("/region").unwrap(), text("/service").unwrap());
    let signed = signer.sign(&request, &secrets, at(text("/timestamp").unwrap()));
    let (canonical_request, _) = canonical_request(&request, &signed.x_amz_date, secrets.session_token);
    let ours = [canonical_request, signed.string_to_sign, signed.signature];
    let theirs = ["canonical-request", "string-to-sign", "signature"].map(|name| read(&format!("header-{name}.txt")));
    assert_eq!(ours, theirs, "{}", folder.display());
    let authorization = format!("\nAuthorization:{}\n", signed.authorization);
    assert!(read("header-signed-request.txt").contains(&authorization), "{}", folder.display());
}
