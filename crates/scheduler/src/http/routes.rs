//! Which path is served by what.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use oxidask_config::{Config, ConfigValue, Origin};
use tokio::sync::Semaphore;

use super::socket::{MAX_SOCKETS, Origins};
use super::source::HttpSource;
use super::{api, dashboard, json, pages, socket};

/// Which pages there are.
#[derive(Clone, Debug)]
pub struct Pages {
    /// `--dashboard-prefix`.
    pub prefix: String,
    /// `/` and `/status` (`--no-dashboard` leaves them out).
    pub dashboard: bool,
    /// `distributed.scheduler.http.routes`: families of pages by stock's module names.
    pub routes: Vec<String>,
    /// `distributed.dashboard.prometheus.namespace`.
    pub namespace: String,
    /// Pages of which hosts may read the live feed.
    pub origins: Origins,
}

/// The module of stock that serves `/api/v1`.
const API: &str = "distributed.http.scheduler.api";
const ROUTES: &str = "distributed.scheduler.http.routes";
const BOKEH: &str = "distributed.scheduler.dashboard.bokeh-application";

impl Pages {
    /// As the configuration says.
    #[must_use]
    pub fn from_config(config: &Config, prefix: &str, dashboard: bool) -> Self {
        let mut routes = config.str_list(ROUTES);
        // Stock leaves it out by default, and operators of clusters then delete workers blindly.
        let secure = config.bool("oxidask.security.secure");
        if *config.origin(ROUTES) == Origin::Default && !secure {
            routes.push(API.to_owned());
        }
        let bokeh = config.get(BOKEH).and_then(ConfigValue::as_map);
        let chosen = *config.origin(BOKEH) != Origin::Default;
        let origins = bokeh.filter(|_| chosen || !secure);
        let origins = origins.and_then(|options| options.get("allow_websocket_origin"));
        let origins = origins.and_then(ConfigValue::as_list).unwrap_or_default();
        let origins = origins.iter().filter_map(ConfigValue::as_str);
        Self {
            prefix: prefix.to_owned(),
            dashboard,
            routes,
            namespace: config
                .str("distributed.dashboard.prometheus.namespace")
                .unwrap_or_default(),
            origins: Origins(origins.map(str::to_owned).collect()),
        }
    }
}

/// What all pages share.
pub(super) struct Site<S> {
    pub(super) source: Arc<S>,
    pub(super) namespace: Arc<str>,
    /// For `/sitemap.json`, with the prefix.
    pub(super) paths: Arc<[String]>,
    pub(super) origins: Arc<Origins>,
    /// Web sockets that may still be opened.
    pub(super) sockets: Arc<Semaphore>,
    /// Whether the live pages are served.
    pub(super) dashboard: bool,
}

impl<S> Clone for Site<S> {
    fn clone(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            namespace: Arc::clone(&self.namespace),
            paths: Arc::clone(&self.paths),
            origins: Arc::clone(&self.origins),
            sockets: Arc::clone(&self.sockets),
            dashboard: self.dashboard,
        }
    }
}

/// One family of pages: path of ours, path as stock's sitemap shows it, handler.
type Family<S> = Vec<(&'static str, &'static str, MethodRouter<Site<S>>)>;

/// Pages by the module of stock that serves them; unknown modules are Python code that cannot run here.
fn family<S: HttpSource>(module: &str) -> Option<Family<S>> {
    let family = match module.strip_prefix("distributed.http.")? {
        "health" => vec![
            ("/health", "/health", get(json::health::<S>)),
            ("/ready", "/ready", get(json::ready::<S>)),
        ],
        "scheduler.prometheus" => vec![("/metrics", "/metrics", get(json::prometheus::<S>))],
        "scheduler.json" => vec![
            (
                "/json/counts.json",
                "/json/counts.json",
                get(json::counts::<S>),
            ),
            (
                "/json/identity.json",
                "/json/identity.json",
                get(json::identity::<S>),
            ),
            ("/json/feed.json", "/json/feed.json", get(json::feed::<S>)),
            ("/json/index.html", "/json/index.html", get(json::index)),
        ],
        "scheduler.info" => info(),
        "scheduler.api" => vec![
            ("/api/v1", "/api/v1", get(api::version)),
            (
                "/api/v1/retire_workers",
                "/api/v1/retire_workers",
                post(api::retire_workers::<S>),
            ),
            (
                "/api/v1/get_workers",
                "/api/v1/get_workers",
                get(api::get_workers::<S>),
            ),
            (
                "/api/v1/adaptive_target",
                "/api/v1/adaptive_target",
                get(api::adaptive_target::<S>),
            ),
            (
                "/api/v1/check_idle",
                "/api/v1/check_idle",
                get(api::check_idle::<S>),
            ),
        ],
        "proxy" => {
            vec![(
                "/proxy/{port}/{host}/{*path}",
                r"/proxy/(\d+)/(.*?)/(.*)",
                get(pages::proxy),
            )]
        }
        "statics" => vec![(
            "/statics/css/base.css",
            "/statics/css/base.css",
            get(style_sheet),
        )],
        "scheduler.missing_bokeh" => Vec::new(),
        _ => return None,
    };
    Some(family)
}

fn info<S: HttpSource>() -> Family<S> {
    vec![
        (
            "/info",
            "/info",
            get(|| async { moved("info/main/workers.html") }),
        ),
        (
            "/info/main/workers.html",
            "/info/main/workers.html",
            get(pages::workers::<S>),
        ),
        (
            "/info/main/exceptions.html",
            "/info/main/exceptions.html",
            get(pages::exceptions::<S>),
        ),
        (
            "/info/main/logs.html",
            "/info/main/logs.html",
            get(pages::logs::<S>),
        ),
        (
            "/info/worker/{*path}",
            "/info/worker/(.*).html",
            get(pages::worker::<S>),
        ),
        (
            "/info/task/{*path}",
            "/info/task/(.*).html",
            get(pages::task::<S>),
        ),
        (
            "/info/call-stacks/{*path}",
            "/info/call-stacks/(.*).html",
            get(pages::worker_call_stacks::<S>),
        ),
        (
            "/info/call-stack/{*path}",
            "/info/call-stack/(.*).html",
            get(pages::task_call_stack::<S>),
        ),
        (
            "/info/logs/{*path}",
            "/info/logs/(.*).html",
            get(pages::worker_logs::<S>),
        ),
        (
            "/individual-plots.json",
            "/individual-plots.json",
            get(json::individual_plots::<S>),
        ),
        (
            "/eventstream",
            "/eventstream",
            get(socket::event_stream::<S>),
        ),
    ]
}

/// A relative redirect keeps working behind any prefix.
fn moved(to: &str) -> Response {
    (StatusCode::FOUND, [("location", to.to_owned())]).into_response()
}

async fn style_sheet() -> Response {
    (
        [(CONTENT_TYPE, "text/css; charset=utf-8")],
        "body{font-family:sans-serif}",
    )
        .into_response()
}

/// The whole site, and one line for each family of routes that is not known.
pub fn router<S: HttpSource>(source: Arc<S>, site: &Pages) -> (Router, Vec<String>) {
    let prefix = site.prefix.trim_matches('/');
    let prefix = if prefix.is_empty() {
        String::new()
    } else {
        format!("/{prefix}")
    };
    let mut router: Router<Site<S>> = Router::new();
    let mut paths = vec!["/sitemap.json".to_owned()];
    let mut problems = Vec::new();
    let mut seen = HashSet::new();
    for module in site
        .routes
        .iter()
        .filter(|module| seen.insert(module.as_str()))
    {
        let Some(family) = family::<S>(module) else {
            problems.push(format!(
                "distributed.scheduler.http.routes names {module}, which this scheduler does not have; skipped"
            ));
            continue;
        };
        for (path, shown, handler) in family {
            router = router.route(&format!("{prefix}{path}"), handler);
            paths.push(format!("{prefix}{shown}"));
        }
    }
    if site.dashboard {
        let status = format!("{prefix}/status");
        let home = |to: String| get(move || async move { moved(&to) });
        if !prefix.is_empty() {
            let below = status.trim_start_matches('/').to_owned();
            let segment = prefix.rsplit('/').next().unwrap_or_default();
            router = router
                .route("/", home(below))
                .route(&prefix, home(format!("{segment}/status")));
        }
        router = router.route(&format!("{prefix}/"), home("status".to_owned()));
        // Bokeh answers with a slash behind it, too; relative links need the path without.
        router = router.route(&format!("{status}/"), home("../status".to_owned()));
        paths.push(format!("{prefix}/"));
        for page in dashboard::PAGES {
            let path = format!("{prefix}{}", page.path);
            let show =
                move |site: State<Site<S>>| async move { page.render(&site.source.address()) };
            router = router.route(&path, get(show));
            paths.push(path);
        }
        router = router
            .route(&format!("{status}/app.js"), get(dashboard::script))
            .route(&format!("{status}/style.css"), get(dashboard::style))
            .route(&format!("{status}/ws"), get(socket::live::<S>));
    }
    paths.sort();
    let state = Site {
        source,
        namespace: site.namespace.as_str().into(),
        paths: paths.into(),
        origins: Arc::new(site.origins.clone()),
        sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
        dashboard: site.dashboard,
    };
    let router = router
        .route("/sitemap.json", get(json::sitemap::<S>))
        .fallback(|| async { pages::not_found() })
        .with_state(state);
    (router, problems)
}
