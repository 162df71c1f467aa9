//! Stage 5: the transports that send bytes out of the process. No other folder does I/O for
//! telemetry.

pub mod aws_call;
pub mod aws_credentials;
pub mod http;
pub mod recorded;
pub mod redact;
pub mod retry;
pub mod sigv4;
pub mod stdout;
pub mod udp;
