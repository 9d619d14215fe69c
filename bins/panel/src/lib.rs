//! The panel: pages for customers over the public API, and nothing but the public API.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use elasticstack_core::client::HyperTransport;
//! # use elasticstack_panel::{Brand, Panel};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let api = Arc::new(HyperTransport::new("http://127.0.0.1:8440")?);
//! let panel = Panel::builder(api).brand(Brand::embedded()).build()?;
//! let pages: axum::Router = panel.router();
//! # Ok(()) }
//! ```
//!
//! It keeps no state of its own but sessions, in memory: an account's key is held while its owner
//! is logged in and written nowhere. Everything else is read from the API at each request, so that
//! the panel may be restarted, or run many times, at will.
//!
//! Pages work without JavaScript; there is none. The security of a page (who asks, where the
//! request comes from, what a browser may load) is decided in the module `guard` for all pages at once.
#![forbid(unsafe_code)]

mod account;
mod app;
mod brand;
mod builds;
pub mod config;
mod fault;
mod guard;
mod pages;
mod request;
mod serve;
mod sessions;
mod throttle;
mod view;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use elasticstack_core::client::Transport;

pub use crate::brand::{Brand, InvalidBrand};
pub use crate::serve::Unserved;

use crate::account::Discreet;
use crate::app::App;
use crate::builds::Builds;
use crate::sessions::Sessions;
use crate::throttle::Throttle;
use crate::view::View;

/// How browsers reach the panel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scheme {
    /// In clear, which is for one's own machine only.
    #[default]
    Http,
    /// Through a proxy that speaks TLS: cookies are marked so.
    Https,
}

/// The panel, ready to serve.
#[derive(Debug)]
pub struct Panel {
    app: Arc<App>,
}

impl Panel {
    /// A panel over the API server that `api` reaches.
    #[must_use]
    pub fn builder(api: Arc<dyn Transport>) -> PanelBuilder {
        PanelBuilder {
            api,
            brand: Brand::embedded(),
            scheme: Scheme::default(),
            proxies: Vec::new(),
        }
    }

    /// Its pages, for a server of your own; [`Panel::serve`] has one. Serve them with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, so that logins are throttled by the
    /// address they come from.
    pub fn router(&self) -> Router {
        pages::router(Arc::clone(&self.app))
    }

    /// Ends the work that no request waits for. A server that was being made is left half made;
    /// its page offers to go on.
    pub async fn close(&self) {
        self.app.builds.close().await;
    }
}

/// A [`Panel`] in the making.
pub struct PanelBuilder {
    api: Arc<dyn Transport>,
    brand: Brand,
    scheme: Scheme,
    proxies: Vec<IpAddr>,
}

impl std::fmt::Debug for PanelBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PanelBuilder")
            .field("brand", &self.brand)
            .field("scheme", &self.scheme)
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

impl PanelBuilder {
    /// The name, logo, colours and templates to show; [`Brand::embedded`] if not called.
    #[must_use]
    pub fn brand(mut self, brand: Brand) -> Self {
        self.brand = brand;
        self
    }

    /// How browsers reach it; [`Scheme::Http`] if not called.
    #[must_use]
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// The proxies whose `X-Forwarded-For` is believed; none if not called.
    #[must_use]
    pub fn proxies(mut self, proxies: Vec<IpAddr>) -> Self {
        self.proxies = proxies;
        self
    }

    /// The panel.
    ///
    /// # Errors
    /// [`InvalidBrand`] if a template of the brand can't be read.
    pub fn build(self) -> Result<Panel, InvalidBrand> {
        let app = App {
            api: Arc::new(Discreet(self.api)),
            view: View::new(self.brand)?,
            sessions: Sessions::default(),
            throttle: Throttle::default(),
            builds: Builds::default(),
            scheme: self.scheme,
            proxies: self.proxies,
        };
        Ok(Panel { app: Arc::new(app) })
    }
}
