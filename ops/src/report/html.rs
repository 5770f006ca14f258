//! Writing HTML in which nothing but this program's own words is markup.

/// A page in the making. Text is always escaped; markup is always a literal of this program.
#[derive(Debug, Default)]
pub struct Html(String);

/// A cell of a table: a class of the style sheet, and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    class: &'static str,
    text: String,
}

impl Cell {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { class: "", text: text.into() }
    }

    /// Text that stands out.
    pub fn class(class: &'static str, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }
}

impl Html {
    /// Markup.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, with all that could be markup taken for what it is.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // Also what turns text around on the screen.
                c if c.is_control() || is_bidi(c) => self.0.extend(c.escape_unicode()),
                c => self.0.push(c),
            }
        }
        self
    }

    /// A number, which cannot be markup.
    pub fn number(&mut self, number: f64) -> &mut Self {
        self.0.push_str(&format!("{number:.1}"));
        self
    }

    /// A table, or what is said where it would be empty.
    pub fn table(&mut self, heads: &[&'static str], rows: &[Vec<Cell>], none: &'static str) {
        if rows.is_empty() {
            self.raw("<p class=\"none\">").text(none).raw("</p>\n");
            return;
        }
        self.raw("<table><thead><tr>");
        for head in heads {
            self.raw("<th>").text(head).raw("</th>");
        }
        self.raw("</tr></thead><tbody>\n");
        for row in rows {
            self.raw("<tr>");
            for cell in row {
                self.raw("<td class=\"").raw(cell.class).raw("\">").text(&cell.text).raw("</td>");
            }
            self.raw("</tr>\n");
        }
        self.raw("</tbody></table>\n");
    }

    /// The page.
    pub fn finish(self) -> String {
        self.0
    }
}

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let mut html = Html::default();
        html.table(
            &["a"],
            &[vec![Cell::text("<script>alert('x & \"y\"')</script>\u{202e}\n"), Cell::class("bad", "</td>")]],
            "none",
        );
        let page = html.finish();
        let expected = "&lt;script&gt;alert(&#39;x &amp; &quot;y&quot;&#39;)&lt;/script&gt;\\u{202e}\\u{a}";
        assert!(page.contains(expected) && page.contains("<td class=\"bad\">&lt;/td&gt;</td>"), "{page}");
        let mut empty = Html::default();
        empty.table(&["a"], &[], "nothing");
        assert_eq!(empty.finish(), "<p class=\"none\">nothing</p>\n");
    }
}
