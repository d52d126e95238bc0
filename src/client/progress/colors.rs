//! Which colours the live view uses, by `NO_COLOR` and `BUILDKIT_COLORS`.

use crate::csv;
use crossterm::style::Color;

/// Colours by what a line is about; none where colours are off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Palette {
    pub(crate) done: Option<Color>,
    pub(crate) canceled: Option<Color>,
    pub(crate) warning: Option<Color>,
    pub(crate) error: Option<Color>,
}

const NAMED: [(&str, Color); 17] = [
    ("default", Color::Reset),
    ("black", Color::Black),
    ("blue", Color::DarkBlue),
    ("cyan", Color::DarkCyan),
    ("green", Color::DarkGreen),
    ("magenta", Color::DarkMagenta),
    ("red", Color::DarkRed),
    ("white", Color::Grey),
    ("yellow", Color::DarkYellow),
    ("light-black", Color::DarkGrey),
    ("light-blue", Color::Blue),
    ("light-cyan", Color::Cyan),
    ("light-green", Color::Green),
    ("light-magenta", Color::Magenta),
    ("light-red", Color::Red),
    ("light-white", Color::White),
    ("light-yellow", Color::Yellow),
];

impl Palette {
    /// Reads the two variables' values; what can't be read is told and left as it was.
    pub(crate) fn read(
        no_color: Option<&str>,
        colors: Option<&str>,
        complain: &mut dyn FnMut(String),
    ) -> Palette {
        if no_color.is_some_and(|v| !v.is_empty()) {
            return Palette { done: None, canceled: None, warning: None, error: None };
        }
        let mut palette = Palette {
            done: Some(Color::DarkBlue),
            canceled: Some(Color::DarkYellow),
            warning: Some(Color::DarkYellow),
            error: Some(Color::DarkRed),
        };
        let fields = match csv::split(colors.unwrap_or_default(), ':') {
            Ok(fields) => fields,
            Err(error) => {
                complain(format!("could not parse BUILDKIT_COLORS ({error}); using the default colors"));
                return palette;
            }
        };
        for field in fields.iter().filter(|f| !f.is_empty()) {
            let Some((key, value)) = field.split_once('=') else {
                complain(format!("BUILDKIT_COLORS: {field:?} is not of the form key=color"));
                continue;
            };
            let Some(color) = parse(value) else {
                complain(format!(
                    "BUILDKIT_COLORS: unknown color {value:?}; use a name such as light-blue or R,G,B with numbers from 0 to 255"
                ));
                continue;
            };
            match key.to_ascii_lowercase().as_str() {
                "run" => palette.done = Some(color),
                "cancel" => palette.canceled = Some(color),
                "warning" => palette.warning = Some(color),
                "error" => palette.error = Some(color),
                _ => complain(format!(
                    "BUILDKIT_COLORS: unknown key {key:?}; expected run, cancel, error or warning"
                )),
            }
        }
        palette
    }
}

fn parse(value: &str) -> Option<Color> {
    let lower = value.to_ascii_lowercase();
    if let Some((_, color)) = NAMED.iter().find(|(name, _)| *name == lower) {
        return Some(*color);
    }
    let mut parts = value.split(',').map(|part| part.parse::<u8>().ok());
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()) {
        (Some(r), Some(g), Some(b), None) => Some(Color::Rgb { r, g, b }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_mistakes() {
        let mut told = Vec::new();
        let palette =
            Palette::read(None, Some("run=light-green:error=1,2,3:x=red:warning=mauve:nope"), &mut |m| {
                told.push(m)
            });
        assert_eq!(palette.done, Some(Color::Green));
        assert_eq!(palette.error, Some(Color::Rgb { r: 1, g: 2, b: 3 }));
        assert_eq!(palette.warning, Some(Color::DarkYellow));
        assert_eq!(told.len(), 3);
        assert_eq!(Palette::read(Some("1"), Some("run=red"), &mut |_| ()).done, None);
    }
}
