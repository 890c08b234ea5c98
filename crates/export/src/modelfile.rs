//! The Modelfile: where Ollama finds the weights, its form of the chat template, and the texts at which it stops.
//!
//! Ollama has its own template language, so the template is rebuilt from renderings of it and checked against further
//! ones. A template that does more than put texts around messages is left out; Ollama then looks for a known template
//! that is like the one in the GGUF file.

use tokenizer::{ChatTemplate, Message, Role, Tokenizer};

/// The text of a Modelfile for the weights `file_name` in the same directory.
pub(crate) fn text(file_name: &str, tokenizer: &Tokenizer, adds_bos: bool) -> String {
    let mut text = format!("FROM ./{file_name}\n");
    let Some(template) = tokenizer.chat_template() else { return text };
    match Pieces::find(tokenizer, template) {
        Some(pieces) => {
            text +=
                &format!("TEMPLATE \"\"\"{}\"\"\"\n", pieces.template(bos(tokenizer, adds_bos)));
        }
        None => {
            text += "# The chat template is in the GGUF file; it has no counterpart in Ollama's language.\n";
        }
    }
    for id in tokenizer.eos_ids() {
        if let Some(token) = tokenizer.token_text(id).filter(|token| !token.contains('"')) {
            text += &format!("PARAMETER stop \"{token}\"\n");
        }
    }
    text
}

/// The text that Ollama puts before every prompt by itself.
fn bos(tokenizer: &Tokenizer, adds_bos: bool) -> String {
    let bos = tokenizer.bos().filter(|_| adds_bos);
    bos.and_then(|id| tokenizer.token_text(id)).unwrap_or_default()
}

/// Texts that a template puts around messages.
#[derive(Debug, PartialEq, Eq)]
struct Pieces {
    /// Before everything, unless the system's turn is first: often its default words.
    start: String,
    /// Before and after the words of a message, by role.
    system: [String; 2],
    user: [String; 2],
    assistant: [String; 2],
    /// After the last message, where the answer begins.
    prompt: String,
}

const WORDS: [&str; 4] = ["QAXZ one", "QBXZ two", "QCXZ three", "QDXZ four"];

impl Pieces {
    /// Finds the pieces and checks them on other conversations.
    fn find(tokenizer: &Tokenizer, template: &ChatTemplate) -> Option<Self> {
        let render = |roles: &[Role], prompt: bool| {
            let message = |(role, words): (&Role, &&str)| Message::new(*role, *words);
            let messages: Vec<Message> = roles.iter().zip(&WORDS).map(message).collect();
            tokenizer.render_chat(&messages, template, prompt).ok()
        };
        let turns = [Role::System, Role::User, Role::Assistant, Role::User];
        let whole = render(&turns, false)?;
        let [before_system, rest] = split(&whole, WORDS[0])?;
        let [between, rest] = split(rest, WORDS[1])?;
        let [answer_start, rest] = split(rest, WORDS[2])?;
        let [second, user_end] = split(rest, WORDS[3])?;
        let with_prompt = render(&turns, true)?;
        let prompt = with_prompt.strip_prefix(&whole)?.to_owned();
        // The end of a user's turn is known, so it cuts the text between two turns.
        let assistant_start = answer_start.strip_prefix(user_end)?;
        // A conversation without a system's turn may start with other texts.
        let alone = render(&[Role::User], false)?;
        let [before_user, _] = split(&alone, WORDS[0])?;
        // Two turns may end alike; the end belongs to the turn before.
        let user_start = common_end(between, second);
        let user_start = user_start.strip_prefix(user_end).unwrap_or(user_start);
        let user_start = common_end(user_start, before_user);
        let system_end = between.strip_suffix(user_start)?;
        let assistant_end = second.strip_suffix(user_start)?;
        let start = before_user.strip_suffix(user_start)?;
        let pieces = Self {
            start: start.to_owned(),
            system: [before_system.to_owned(), system_end.to_owned()],
            user: [user_start.to_owned(), user_end.to_owned()],
            assistant: [assistant_start.to_owned(), assistant_end.to_owned()],
            prompt,
        };
        let conversations: [&[Role]; 4] = [
            &[Role::User],
            &[Role::System, Role::User],
            &[Role::User, Role::Assistant, Role::User],
            &turns,
        ];
        let agrees = |roles: &[Role]| render(roles, true) == Some(pieces.render(roles));
        let has_quotes = format!("{pieces:?}").contains("{{") || whole.contains("\"\"\"");
        (!has_quotes && conversations.into_iter().all(agrees)).then_some(pieces)
    }

    fn render(&self, roles: &[Role]) -> String {
        let has_system = roles.first() == Some(&Role::System);
        let mut text = if has_system { String::new() } else { self.start.clone() };
        for (role, words) in roles.iter().zip(WORDS) {
            let [before, after] = match role {
                Role::System => &self.system,
                Role::Assistant => &self.assistant,
                Role::User | Role::Tool => &self.user,
            };
            text += &format!("{before}{words}{after}");
        }
        text + &self.prompt
    }

    /// The template in Ollama's language, without the text that Ollama puts first.
    fn template(&self, bos: String) -> String {
        let start = self.start.strip_prefix(&bos).unwrap_or(&self.start);
        let start = match start {
            "" => String::new(),
            text => {
                format!("{{{{ if ne (index .Messages 0).Role \"system\" }}}}{text}{{{{ end }}}}")
            }
        };
        let turn = |[before, after]: &[String; 2]| {
            let before = before.strip_prefix(&bos).unwrap_or(before);
            format!("{before}{{{{ .Content }}}}{after}")
        };
        format!(
            "{start}{{{{ range .Messages }}}}{{{{ if eq .Role \"system\" }}}}{}{{{{ else if eq .Role \"user\" }}}}{}{{{{ else if eq .Role \"assistant\" }}}}{}{{{{ end }}}}{{{{ end }}}}{}",
            turn(&self.system),
            turn(&self.user),
            turn(&self.assistant),
            self.prompt
        )
    }
}

/// The texts before and after the only occurrence of `words`.
fn split<'a>(text: &'a str, words: &str) -> Option<[&'a str; 2]> {
    let (before, after) = text.split_once(words)?;
    (!after.contains(words)).then_some([before, after])
}

/// The longest common end of two texts, whole characters.
fn common_end<'a>(a: &'a str, b: &str) -> &'a str {
    let pairs = a.chars().rev().zip(b.chars().rev());
    let n_bytes: usize = pairs.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    &a[a.len() - n_bytes..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(template: &str) -> Tokenizer {
        let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"].map(str::to_owned);
        let text = std::iter::once("a b c".to_owned());
        let tokenizer = Tokenizer::train_byte_bpe(text, 270, &special).unwrap();
        let template = match template {
            "chatml" => ChatTemplate::builtin("chatml").unwrap(),
            source => ChatTemplate::from_source("test", source).unwrap(),
        };
        tokenizer.with_chat_template(template)
    }

    #[test]
    fn a_template_of_turns_is_rebuilt() {
        let tokenizer = tokenizer("chatml");
        let text = text("model.gguf", &tokenizer, false);
        assert!(text.starts_with("FROM ./model.gguf\nTEMPLATE \"\"\""), "{text}");
        assert!(
            text.contains(
                "{{ else if eq .Role \"user\" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n"
            ),
            "{text}"
        );
        assert!(text.contains("{{ end }}{{ end }}<|im_start|>assistant\n\"\"\""), "{text}");
        assert!(text.contains("PARAMETER stop \"<|im_end|>\"\n"), "{text}");
    }

    #[test]
    fn the_text_that_ollama_adds_is_left_out() {
        let source = "<s>{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
        let tokenizer = tokenizer(source);
        let template = tokenizer.chat_template().unwrap();
        let pieces = Pieces::find(&tokenizer, template).unwrap();
        let first =
            "{{ if ne (index .Messages 0).Role \"system\" }}<s>{{ end }}{{ range .Messages }}";
        assert!(pieces.template(String::new()).starts_with(first));
        assert!(pieces.template("<s>".to_owned()).starts_with("{{ range .Messages }}"));
    }

    #[test]
    fn default_words_of_the_system_are_kept() {
        let source = "{% for m in messages %}{% if loop.first and m.role != 'system' %}[system]Help.<|im_end|>{% endif %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
        let text = text("model.gguf", &tokenizer(source), false);
        let first =
            "{{ if ne (index .Messages 0).Role \"system\" }}[system]Help.<|im_end|>{{ end }}";
        assert!(text.contains(first), "{text}");
    }

    #[test]
    fn other_templates_are_left_out() {
        // Turns are numbered.
        let source = "{% for m in messages %}[{{ loop.index }} {{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
        let text = text("model.gguf", &tokenizer(source), false);
        assert!(!text.contains("TEMPLATE"), "{text}");
        assert!(text.contains("# The chat template is in the GGUF file"), "{text}");
    }
}
