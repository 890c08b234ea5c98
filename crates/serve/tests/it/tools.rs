//! Tools: rendered by templates that read them, called where the model chooses to and where it has to.

use serde_json::{Value, json};
use tokenizer::ChatTemplate;

use crate::support::{Server, bytes, endless, options};

const TEMPLATE: &str = "{% for tool in tools or [] %}{{ tool.function.name }}<tool_call>{% endfor %}\
    {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn server(template: &str) -> Server {
    let template = ChatTemplate::from_source("tools", template).unwrap();
    let options = serve::Options { max_tokens: 200, ..options() };
    Server::start_long_with(bytes().with_chat_template(template), options)
}

fn tools() -> Value {
    let city = json!({"$ref": "#/$defs/city"});
    let parameters = json!({"type": "object", "properties": {"in": city, "days": {"type": "integer", "maximum": 9, "minimum": 0}},
        "required": ["in", "days"], "additionalProperties": false,
        "$defs": {"city": {"enum": ["Rome", "a \"b\""]}}});
    json!([
        {"type": "function", "function": {"name": "now"}},
        {"type": "function", "function": {"name": "weather", "description": "x", "parameters": parameters}},
    ])
}

/// Name and arguments of each call of the first choice.
fn calls(answer: &Value) -> Vec<(String, Value)> {
    let calls = answer["choices"][0]["message"]["tool_calls"].as_array();
    let calls = calls.unwrap_or_else(|| panic!("no calls: {answer}"));
    let call = |call: &Value| {
        let arguments = call["function"]["arguments"].as_str().unwrap();
        let name = call["function"]["name"].as_str().unwrap().to_owned();
        (name, serde_json::from_str(arguments).unwrap())
    };
    calls.iter().map(call).collect()
}

#[test]
fn tools_are_rendered_by_a_template_that_reads_them() {
    let server = server(TEMPLATE);
    let tools = json!([{"type": "function", "function": {"name": "abc", "parameters": {"type": "object"}}}]);
    let ask = |more: Value| server.chat("Hi", more);
    let n_prompt = |more: Value| ask(more).json()["usage"]["prompt_tokens"].as_u64().unwrap();
    let without = n_prompt(json!({"max_tokens": 2}));
    let with = n_prompt(json!({"max_tokens": 2, "tools": tools, "tool_choice": "auto", "seed": 1}));
    assert_eq!(with, without + "abc<tool_call>".len() as u64);
    assert_eq!(n_prompt(json!({"max_tokens": 2, "tools": tools, "tool_choice": "none"})), without);
    // Without calls an answer with tools is one without, however many calls it may have.
    let body = json!({"tools": tools, "seed": 1, "max_tokens": 40, "logit_bias": endless()});
    let whole = ask(body.clone()).json();
    assert!(whole["choices"][0]["message"].get("tool_calls").is_none());
    let mut body = body;
    body["parallel_tool_calls"] = false.into();
    assert_eq!(ask(body.clone()).json()["choices"], whole["choices"]);
    body["stream"] = true.into();
    let chunks = ask(body).events();
    let text: String = chunks
        .iter()
        .map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(text, whole["choices"][0]["message"]["content"].as_str().unwrap());
}

#[test]
fn calls_that_are_required_follow_the_schema() {
    let server = server(TEMPLATE);
    for seed in 0..4 {
        let body = json!({"tools": tools(), "tool_choice": "required", "parallel_tool_calls": false, "seed": seed, "max_tokens": 200});
        let answer = server.chat("Hi", body.clone()).json();
        let found = calls(&answer);
        let [(name, arguments)] = &found[..] else { panic!("one call: {answer}") };
        if name == "now" {
            assert_eq!(*arguments, json!({}));
        } else {
            assert!(arguments["in"] == "Rome" || arguments["in"] == "a \"b\"", "{answer}");
            assert!(arguments["days"].as_i64().is_some_and(|days| (0..=9).contains(&days)));
        }
        let choice = &answer["choices"][0];
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("tool_calls"), &Value::Null)
        );
        // Streamed, it is the same call.
        let mut body = body;
        body["stream"] = true.into();
        let chunks = server.chat("Hi", body).events();
        let streamed = chunks
            .iter()
            .find_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0].as_object());
        let function = &streamed.expect("a call")["function"];
        assert_eq!(*function, choice["message"]["tool_calls"][0]["function"]);
    }
    let named = json!({"type": "function", "function": {"name": "weather"}});
    let answer = server
        .chat("Hi", json!({"tools": tools(), "tool_choice": named, "seed": 3, "max_tokens": 200}));
    assert_eq!(calls(&answer.json()).len(), 1);
    assert_eq!(calls(&answer.json())[0].0, "weather");
    // Several calls, with a bias against the end, until there is no room for more.
    let body = json!({"tools": tools(), "tool_choice": "required", "seed": 1, "max_tokens": 200, "logit_bias": endless(), "n": 2});
    let answer = server.chat("Hi", body).json();
    assert!(
        !calls(&answer).is_empty() && answer["choices"][0]["finish_reason"] == "length",
        "{answer}"
    );
}

#[test]
fn wrong_tools_are_named() {
    let server = server(TEMPLATE);
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    let bad =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "strange"}}}]);
    for (body, param, part) in [
        (json!({"tools": tools(), "tool_choice": named("f")}), "tool_choice", "no function `f`"),
        (json!({"tool_choice": "required"}), "tool_choice", "`tools` is empty"),
        (json!({"tools": tools(), "tool_choice": "any"}), "tool_choice", "not supported"),
        (json!({"tools": tools(), "tool_choice": {"type": "x"}}), "tool_choice", "not supported"),
        (json!({"tools": [{"type": "custom"}]}), "tools", "no function with a name"),
        (json!({"tools": bad, "tool_choice": "required"}), "tools", "cannot be followed"),
    ] {
        let response = server.chat("Hi", body);
        assert_eq!(response.status, 400, "{}", response.body);
        let error = &response.json()["error"];
        assert_eq!(error["param"], param, "{error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
    // ChatML has no place for tools.
    let plain = Server::start(options());
    let response = plain.chat("Hi", json!({"tools": tools()}));
    assert!(
        response.status == 400 && response.body.contains("no place for tools"),
        "{}",
        response.body
    );
}
