//! How domains grew, as charts.

use super::history::Growth;
use super::html::Html;
use super::size;
use crate::words::count;

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 90.0;
const EDGE: f64 = 6.0;

/// A chart for each domain.
pub fn section(page: &mut Html, growth: &[Growth]) {
    page.raw("<h2>").text("Growth").raw("</h2>\n<div class=\"charts\">\n");
    for grown in growth {
        let (Some((first, _)), Some((last, newest))) = (grown.sizes.first(), grown.sizes.last()) else {
            continue;
        };
        let span = (last.as_second() - first.as_second()).max(1) as f64;
        let most = grown.sizes.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1) as f64;
        let points = grown.sizes.iter().map(|(time, bytes)| {
            let x = EDGE + (time.as_second() - first.as_second()).max(0) as f64 / span * (WIDTH - 2.0 * EDGE);
            let y = HEIGHT - EDGE - *bytes as f64 / most * (HEIGHT - 2.0 * EDGE);
            (x, y)
        });
        page.raw(
            "<figure><svg width=\"320\" height=\"90\" viewBox=\"0 0 320 90\" role=\"img\" aria-label=\"",
        );
        page.text("Size of ").text(grown.domain.as_str()).raw("\"><polyline points=\"");
        let mut end = (EDGE, EDGE);
        for (x, y) in points {
            page.number(x).raw(",").number(y).raw(" ");
            end = (x, y);
        }
        page.raw("\"/><circle cx=\"")
            .number(end.0)
            .raw("\" cy=\"")
            .number(end.1)
            .raw("\" r=\"3\"/></svg><figcaption>");
        let days = format!("{} to {}", first.strftime("%Y-%m-%d"), last.strftime("%Y-%m-%d"));
        page.text(grown.domain.as_str()).text(&format!(
            ": {}, {}, {days}",
            size(*newest),
            count(grown.sizes.len(), "snapshot")
        ));
        page.raw("</figcaption></figure>\n");
    }
    page.raw("</div>\n");
    if growth.is_empty() {
        page.raw("<p class=\"none\">").text("There are no snapshots yet.").raw("</p>\n");
    }
}
