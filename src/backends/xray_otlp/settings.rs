//! Settings of the backend: reads `[xray_otlp]` and AWS's variables, and makes a client.

use std::sync::Arc;
use std::time::Duration;

use super::limits::XRaySpans;
use super::{NAME, PATH};
use crate::backends::{PlanContext, xray_udp};
use crate::delivery::{Encoding, Plan};
use crate::settings::BatchLimits;
use crate::settings::section::{choice, flag, section, whole};
use crate::text::Message;
use crate::wire::aws_call::AwsClient;
use crate::wire::aws_credentials::XRAY;

section! {
    /// Sends traces to AWS X-Ray without the daemon: to X-Ray's OTLP endpoint, as JSON, signed. The
    /// account must have Transaction Search on; aws/README.md has the commands. AWS charges by the
    /// byte, so it is off by default. Region and credentials come from AWS's own variables and files:
    /// AWS_REGION, AWS_ACCESS_KEY_ID, AWS_PROFILE and so on.
    pub(super) struct XRayOtlp("xray_otlp") {
        enabled: bool = flag(false),
        /// "gzip" sends about a tenth of the bytes.
        compression: &'static str = choice("none", &["none", "gzip"]),
        /// Longest time before a span is sent, in milliseconds.
        schedule_delay: u64 = whole(5000, 1..=3_600_000),
        /// Spans per batch. A full batch is sent at once. The limits of the endpoint are always kept.
        max_export_batch_size: u64 = whole(512, 1..=1_000_000),
        /// Spans that the queue holds. More are dropped and counted.
        max_queue_size: u64 = whole(2048, 1..=1_000_000),
    }
}

/// Age from which the endpoint refuses a span
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html>).
const MAX_AGE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

pub(super) fn plan(context: &mut PlanContext<'_>) -> Result<Plan, Message> {
    let PlanContext { sources, shared, findings } = context;
    let (table, mut values) = XRayOtlp::read(sources, findings)?;
    shared.add_to(&mut values);
    let spool = shared.spool(MAX_AGE, &mut values);
    let limits = BatchLimits::new(&table.schedule_delay, &table.max_queue_size, &table.max_export_batch_size, findings);
    let encoding = Encoding::Traces(Arc::new(XRaySpans::new(shared.resource.clone())));
    let mut plan = Plan { spool, ..Plan::new(NAME, encoding, limits, values) };
    plan.destination = "X-Ray's OTLP endpoint".to_owned();
    if !table.enabled.value {
        return Ok(plan.off(&table.enabled));
    }
    Ok(match AwsClient::new(NAME, XRAY, PATH, sources, &mut plan.values, findings) {
        Err(missing) => plan.waiting(&missing),
        Ok((client, origin)) => {
            if xray_udp::is_on(sources)? {
                let what = "[xray] and [xray_otlp] are both on: every trace arrives twice if the daemon sends to the same account";
                findings.warn(Message::new(what).next("switch one of them off"));
            }
            plan.destination = client.url().redacted();
            let (enabled, delay) = (&table.enabled.origin, limits.delay.as_millis());
            let reason = format!("enabled at {enabled}; {origin}; a batch is sent after {delay} ms");
            plan.on(super::XRayOtlp { client, gzip: table.compression.value == "gzip" }, reason)
        }
    })
}
