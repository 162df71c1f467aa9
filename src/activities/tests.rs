use super::*;

#[test]
fn the_last_check_that_fails_is_the_one_that_counts() {
    assert_eq!(last_failing([(true, "first"), (true, "second"), (false, "third")]), Err(Invalid("second")));
    assert_eq!(last_failing([(false, "first")]), Ok(()));
}

#[test]
fn lengths_are_counted_in_characters() {
    assert!(!longer_than(&"🦀".repeat(280), 280));
    assert!(longer_than(&"a".repeat(281), 280));
    assert!(!longer_than("", 0));
}

#[test]
fn times_are_utc_with_microseconds_and_an_offset() {
    let time = Time(DateTime::from_timestamp(1_676_851_200, 1_234_567).unwrap());
    assert_eq!(time.to_string(), "2023-02-20T00:00:00.001234+00:00");
}

#[test]
fn every_uuid_of_the_mock_data_is_another() {
    let now = Time::now();
    let activities = [mock::home(now), mock::notifications(now), mock::user(ME, now), mock::search(now)].concat();
    let with_replies = activities.iter().flat_map(|activity| activity.replies.iter().chain([activity]));
    let mut uuids: Vec<_> = with_replies.map(|activity| activity.uuid.clone()).collect();
    uuids.extend(mock::message_groups(now).into_iter().map(|group| group.uuid));
    uuids.extend(mock::messages("worf", now).into_iter().map(|message| message.uuid));
    let all = uuids.len();
    uuids.sort();
    uuids.dedup();
    assert_eq!(uuids.len(), all);
    assert!(uuids.iter().all(|uuid| uuid::Uuid::parse_str(uuid).is_ok()));
}
