//! The live pages: small, without any resource from elsewhere, drawn by `assets/app.js` from the messages
//! of [`super::socket`].

use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::html::escape;

const SCRIPT: &str = include_str!("assets/app.js");
const STYLE: &str = include_str!("assets/style.css");

/// Nothing but this server's own script and style runs, whatever peers call their tasks.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'";

/// A part of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Summary,
    Workers,
    Progress,
    Stream,
    System,
}

impl Part {
    /// As the script knows it.
    fn name(self) -> &'static str {
        match self {
            Self::Summary => "summary",
            Self::Workers => "workers",
            Self::Progress => "progress",
            Self::Stream => "stream",
            Self::System => "system",
        }
    }

    fn markup(self) -> &'static str {
        match self {
            Self::Summary => {
                "<section class=\"wide\"><h2>Cluster</h2><dl class=\"facts\" id=\"summary-facts\"></dl></section>"
            }
            Self::Workers => {
                "<section class=\"wide\"><h2>Workers</h2><table><thead><tr><th>Name</th><th>Status</th>\
                 <th>Threads</th><th>CPU</th><th></th><th>Memory</th><th></th><th>Processing</th>\
                 <th>In memory</th><th>Occupancy</th><th>Last seen</th></tr></thead>\
                 <tbody id=\"workers-rows\"></tbody></table><div class=\"legend\" id=\"workers-legend\"></div>\
                 <div id=\"workers-more\"></div></section>"
            }
            Self::Progress => {
                "<section><h2>Progress</h2><table><thead><tr><th>Task</th><th>States</th><th>Done</th>\
                 <th>Average</th><th>Bytes</th></tr></thead><tbody id=\"progress-rows\"></tbody></table>\
                 <div class=\"legend\" id=\"progress-legend\"></div><div id=\"progress-more\"></div></section>"
            }
            Self::Stream => {
                "<section><h2>Task stream</h2><canvas id=\"stream-canvas\"></canvas>\
                 <div class=\"legend\" id=\"stream-count\"></div></section>"
            }
            Self::System => {
                "<section><h2>Scheduler</h2><dl class=\"facts\" id=\"system-facts\"></dl></section>"
            }
        }
    }
}

/// A live page.
pub(super) struct LivePage {
    /// Below the prefix.
    pub(super) path: &'static str,
    title: &'static str,
    parts: &'static [Part],
}

/// All live pages, under the paths that stock's have.
pub(super) const PAGES: &[LivePage] = &[
    LivePage {
        path: "/status",
        title: "Status",
        parts: &[Part::Summary, Part::Workers, Part::Progress, Part::Stream],
    },
    LivePage {
        path: "/workers",
        title: "Workers",
        parts: &[Part::Workers],
    },
    LivePage {
        path: "/tasks",
        title: "Tasks",
        parts: &[Part::Progress, Part::Stream],
    },
    LivePage {
        path: "/system",
        title: "System",
        parts: &[Part::System],
    },
    LivePage {
        path: "/individual-task-stream",
        title: "Task Stream",
        parts: &[Part::Stream],
    },
    LivePage {
        path: "/individual-progress",
        title: "Progress",
        parts: &[Part::Progress],
    },
    LivePage {
        path: "/individual-workers",
        title: "Workers",
        parts: &[Part::Workers],
    },
];

impl LivePage {
    /// Its entry in `/individual-plots.json`, if it has one.
    pub(super) fn individual(&self) -> Option<(String, &'static str)> {
        let name = self.path.strip_prefix("/individual-")?;
        let words = name.split('-').map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        });
        let title: Vec<String> = std::iter::once("Individual".to_owned())
            .chain(words)
            .collect();
        Some((title.join(" "), self.path))
    }

    /// The page.
    pub(super) fn render(&self, address: &str) -> Response {
        let parts: Vec<&str> = self.parts.iter().map(|part| part.name()).collect();
        let body: String = self.parts.iter().map(|part| part.markup()).collect();
        let (title, address) = (self.title, escape(address));
        let text = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
             <meta name=\"viewport\" content=\"width=device-width\"/><title>Dask: {title}</title>\
             <link rel=\"icon\" href=\"data:,\"/><link rel=\"stylesheet\" href=\"status/style.css\"/>\
             <script src=\"status/app.js\" defer=\"defer\"></script></head>\n\
             <body data-parts=\"{}\"><header><h1>Dask {title}</h1><span id=\"address\">{address}</span>\
             <span id=\"state\">connecting</span><nav><a href=\"status\">Status</a><a href=\"workers\">Workers</a>\
             <a href=\"tasks\">Tasks</a><a href=\"system\">System</a><a href=\"info/main/workers.html\">Info</a>\
             <a href=\"info/main/exceptions.html\">Exceptions</a><a href=\"info/main/logs.html\">Logs</a>\
             <a href=\"metrics\">Metrics</a></nav></header>\n<main>{body}</main>\n\
             <noscript><p>These pages need JavaScript; those under Info do not.</p></noscript>\
             <footer>Served by the scheduler itself; bokeh is not needed.</footer></body></html>\n",
            parts.join(" ")
        );
        asset("text/html; charset=utf-8", text)
    }
}

pub(super) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT.to_owned())
}

pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE.to_owned())
}

fn asset(content_type: &'static str, text: String) -> Response {
    const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
    let headers = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-cache"),
        (NO_SNIFF, "nosniff"),
    ];
    (headers, text).into_response()
}
