//! The tools of a request, and which of them its answer has to call.

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizer::ChatTemplate;

use super::{ApiError, Fields};
use crate::tool_calls::ToolCalls;

/// The tools of a request.
#[derive(Debug, Default)]
pub(super) struct Tools {
    /// Those that the chat template shows the model.
    pub(super) shown: Vec<Value>,
    /// Those of which the answer calls one, if it has to.
    pub(super) required: Option<RequiredCalls>,
    /// Whether an answer has one call at most.
    pub(super) is_single: bool,
}

/// Calls of which an answer consists.
#[derive(Debug)]
pub(crate) struct RequiredCalls {
    /// The functions that may be called.
    pub(crate) functions: Vec<Function>,
    /// Whether there is one call only.
    pub(crate) is_single: bool,
}

/// A function that may be called.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The JSON schema of the arguments.
    pub(crate) parameters: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Choice {
    Mode(String),
    Named { r#type: String, function: FunctionName },
}

#[derive(Deserialize)]
struct FunctionName {
    name: String,
}

/// Reads `tools`, `tool_choice` and `parallel_tool_calls`.
pub(super) fn read(
    fields: &mut Fields,
    template: Option<&ChatTemplate>,
) -> Result<Tools, ApiError> {
    let tools: Vec<Value> = fields.take("tools")?.unwrap_or_default();
    let is_single = !fields.take("parallel_tool_calls")?.unwrap_or(true);
    let choice: Value = fields.take("tool_choice")?.unwrap_or(Value::Null);
    let functions = tools.iter().map(function).collect::<Result<Vec<_>, _>>()?;
    let wrong = |message: String| ApiError::field("tool_choice", message);
    let required = match serde_json::from_value(choice.clone()) {
        _ if choice.is_null() => None,
        Ok(Choice::Mode(mode)) => match mode.as_str() {
            "auto" => None,
            "none" => return Ok(Tools::default()),
            "required" => Some(RequiredCalls { functions, is_single }),
            _ => return Err(ApiError::refused("tool_choice", &choice)),
        },
        Ok(Choice::Named { r#type, function }) if r#type == "function" => {
            let FunctionName { name } = function;
            let named = functions.into_iter().find(|function| function.name == name);
            let missing = || wrong(format!("`tools` has no function `{name}`"));
            Some(RequiredCalls { functions: vec![named.ok_or_else(missing)?], is_single: true })
        }
        Ok(Choice::Named { .. }) | Err(_) => return Err(ApiError::refused("tool_choice", &choice)),
    };
    if let Some(RequiredCalls { functions, .. }) = &required {
        if functions.is_empty() {
            return Err(wrong("a call is required, and `tools` is empty".to_owned()));
        }
        if !template.is_some_and(|template| ToolCalls::is_form_of(template.source())) {
            let form = "a call cannot be required: the model's chat template does not have the form `<tool_call>`";
            return Err(wrong(form.to_owned()));
        }
    }
    if !tools.is_empty() && template.is_some_and(|template| !template.reads("tools")) {
        let message = "the model's chat template has no place for tools";
        return Err(ApiError::unsupported("tools", message));
    }
    Ok(Tools { shown: tools, required, is_single })
}

fn function(tool: &Value) -> Result<Function, ApiError> {
    let is_function = tool.get("type").is_some_and(|kind| kind == "function");
    let function = tool.get("function").filter(|_| is_function);
    let function: Option<Function> =
        function.and_then(|function| serde_json::from_value(function.clone()).ok());
    function.ok_or_else(|| {
        ApiError::field("tools", format!("a tool is no function with a name: `{tool}`"))
    })
}

impl Function {
    /// The schema of the arguments; without one a function has none.
    pub(crate) fn schema(&self) -> Value {
        let none = || json!({"type": "object", "properties": {}, "additionalProperties": false});
        self.parameters.clone().filter(|schema| !schema.is_null()).unwrap_or_else(none)
    }
}
