//! Names of header lines that are looked up in every request, made once.

use http::HeaderName;
use relay_proto::names;

pub(crate) static FORWARDED_FOR: HeaderName = HeaderName::from_static(names::FORWARDED_FOR);
pub(crate) static FORWARDED_PROTO: HeaderName = HeaderName::from_static(names::FORWARDED_PROTO);
pub(crate) static FORWARDED_HOST: HeaderName = HeaderName::from_static(names::FORWARDED_HOST);
pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static(names::TRACEPARENT);
pub(crate) static EVENT_ID: HeaderName = HeaderName::from_static(names::EVENT_ID);
