//! Warnings about the region: an unknown name, or two variables with different values.

use crate::settings::Env;
use crate::text::Message;

/// The regions of AWS as of 2026. AWS adds new ones, so an unknown region is a warning, not an
/// error.
const KNOWN_REGIONS: &str = "\
    af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 \
    ap-south-2 ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 \
    ap-southeast-6 ap-southeast-7 ca-central-1 ca-west-1 cn-north-1 cn-northwest-1 eu-central-1 \
    eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3 eusc-de-east-1 \
    il-central-1 me-central-1 me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-gov-east-1 \
    us-gov-west-1 us-west-1 us-west-2";

/// Returns warnings about `region`. `origin` is the place where the region was found.
pub fn region_warnings(env: &Env, region: &str, origin: &str) -> Vec<Message> {
    let mut warnings = Vec::new();
    if !known_regions().any(|known| known == region) && !region.contains("-iso") {
        let nearest =
            known_regions().min_by_key(|known| strsim::damerau_levenshtein(known, region)).unwrap_or("us-east-1");
        let what = format!("unknown AWS region: {origin}={region}; did you mean {nearest}?");
        warnings.push(what.into());
    }
    if let [Some(first), Some(second)] = ["AWS_REGION", "AWS_DEFAULT_REGION"].map(|name| env.get(name).map(str::trim))
        && first != second
    {
        let what = format!(
            "region mismatch: cruddur uses AWS_REGION={first}, but Python's SDK and the aws command use \
             AWS_DEFAULT_REGION={second}"
        );
        warnings.push(Message::new(what).next("set both to the same region"));
    }
    warnings
}

fn known_regions() -> impl Iterator<Item = &'static str> {
    KNOWN_REGIONS.split_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_region_is_doubted_with_the_nearest_known_one() {
        for (region, nearest) in
            [("can-central-1", "ca-central-1"), ("us-est-1", "us-east-1"), ("eu-west-33", "eu-west-3")]
        {
            let warnings = region_warnings(&Env::default(), region, "AWS_REGION");
            assert_eq!(warnings.len(), 1);
            let text = warnings[0].to_string();
            assert!(text.starts_with(&format!("unknown AWS region: AWS_REGION={region};")), "{text}");
            assert!(text.ends_with(&format!("did you mean {nearest}?")), "{text}");
        }
        for region in known_regions().chain(["us-isob-east-1"]) {
            assert_eq!(region_warnings(&Env::default(), region, "AWS_REGION"), []);
        }
    }

    #[test]
    fn two_regions_are_one_too_many() {
        let two = Env::from([("AWS_REGION", "us-east-1"), ("AWS_DEFAULT_REGION", "ca-central-1")]);
        assert!(
            region_warnings(&two, "us-east-1", "AWS_REGION")[0].what.contains("cruddur uses AWS_REGION=us-east-1,")
        );
        let same = Env::from([("AWS_REGION", "us-east-1"), ("AWS_DEFAULT_REGION", "us-east-1")]);
        assert_eq!(region_warnings(&same, "us-east-1", "AWS_REGION"), []);
    }
}
