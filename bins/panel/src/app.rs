//! What every page shares.

use std::net::IpAddr;
use std::sync::Arc;

use elasticstack_core::client::Transport;

use crate::Scheme;
use crate::builds::Builds;
use crate::sessions::Sessions;
use crate::throttle::Throttle;
use crate::view::View;

pub(crate) struct App {
    pub(crate) api: Arc<dyn Transport>,
    pub(crate) view: View,
    pub(crate) sessions: Sessions,
    pub(crate) throttle: Throttle,
    pub(crate) builds: Builds,
    pub(crate) scheme: Scheme,
    pub(crate) proxies: Vec<IpAddr>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}
