//! Commands of a conversation. They begin with a slash.

/// The list of `/help`.
pub(super) const HELP: &str = "\
/system [TEXT]  show the system message, or start again with another one
/reset          start again with the same system message
/retry          another answer to the last message
/edit           change the last message
/save FILE      save the conversation as JSON; /load FILE reads it
/temp [X]       show or set the sampling temperature; 0 is the most probable token
/stats          tokens and speed
/quit           end, as ctrl-D does
A line that ends with a backslash goes on in the next one; pasted lines stay together.
A message that begins with a slash needs two of them.
";

/// Names for completion.
pub(super) const NAMES: &[&str] = &[
    "/edit", "/help", "/load ", "/quit", "/reset", "/retry", "/save ", "/stats", "/system ",
    "/temp ",
];

/// A line, parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    /// An empty line.
    Nothing,
    /// A message.
    Say(String),
    Help,
    System(Option<String>),
    Reset,
    Retry,
    Edit,
    Save(String),
    Load(String),
    Temperature(Option<f64>),
    Stats,
    Quit,
    /// A command that does not exist, or lacks what it needs.
    Unknown(String),
}

impl Command {
    pub(super) fn parse(line: &str) -> Self {
        let line = line.trim();
        if line.is_empty() {
            return Self::Nothing;
        }
        if let Some(text) = line.strip_prefix("//") {
            return Self::Say(format!("/{text}"));
        }
        if !line.starts_with('/') {
            return Self::Say(line.to_owned());
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let argument = (!rest.is_empty()).then(|| rest.to_owned());
        let number = rest.parse::<f64>().ok().filter(|value| *value >= 0.0 && value.is_finite());
        match (name, argument) {
            ("/help", None) => Self::Help,
            ("/system", text) => Self::System(text),
            ("/reset", None) => Self::Reset,
            ("/retry", None) => Self::Retry,
            ("/edit", None) => Self::Edit,
            ("/save", Some(path)) => Self::Save(path),
            ("/load", Some(path)) => Self::Load(path),
            ("/temp", None) => Self::Temperature(None),
            ("/temp", Some(_)) if number.is_some() => Self::Temperature(number),
            ("/stats", None) => Self::Stats,
            ("/quit" | "/exit" | "/bye", None) => Self::Quit,
            _ => Self::Unknown(line.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, HELP, NAMES};

    #[test]
    fn lines_are_messages_or_commands() {
        let parsed = |line: &str| Command::parse(line);
        assert_eq!(parsed("  "), Command::Nothing);
        assert_eq!(parsed(" hi\nthere "), Command::Say("hi\nthere".into()));
        assert_eq!(parsed("//etc is what?"), Command::Say("/etc is what?".into()));
        assert_eq!(parsed("/system be  kind "), Command::System(Some("be  kind".into())));
        assert_eq!(parsed("/system"), Command::System(None));
        assert_eq!(parsed("/temp 0.5"), Command::Temperature(Some(0.5)));
        assert_eq!(parsed("/save a b.json"), Command::Save("a b.json".into()));
        for line in ["/temp hot", "/temp -1", "/temp nan", "/save", "/reset now", "/x", "/"] {
            assert_eq!(parsed(line), Command::Unknown(line.into()), "{line}");
        }
    }

    #[test]
    fn every_name_is_a_command_that_the_help_explains() {
        for name in NAMES {
            let line = format!("{name}1");
            let line = if name.ends_with(' ') { line.as_str() } else { name };
            assert!(!matches!(Command::parse(line), Command::Unknown(_)), "{name}");
            assert!(*name == "/help" || HELP.contains(name.trim()), "{name}");
        }
    }
}
