//! Malicious tokenizer.json files and chat templates: errors, but no panic, hang or memory exhaustion.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizer::{ChatTemplate, Error, Message, Role, Tokenizer, default_special_tokens};

use crate::support;

/// Time limit for one input: far above the usual time, since builds of the profile dev are not
/// optimised and machines are shared.
const LIMIT: Duration = Duration::from_secs(5);

fn load(json: &str) -> Result<Tokenizer, Error> {
    let dir = support::directory(&[("tokenizer.json", json)]);
    let start = Instant::now();
    let outcome = Tokenizer::from_dir_or_file(dir.path());
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    outcome
}

/// A small valid tokenizer.json.
fn valid() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 3, "content": "</s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    })
}

fn with(path: &str, value: Value) -> String {
    let mut json = valid();
    *json.pointer_mut(path).expect("the path") = value;
    json.to_string()
}

#[test]
fn an_invalid_tokenizer_json_is_refused_with_its_reason() {
    assert_eq!(
        load(&valid().to_string()).expect("it is valid").encode("abb").expect("ids"),
        [2, 1]
    );
    let regex = |pattern: &str| {
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": false})
    };
    for (json, reason) in [
        (
            with("/model/dropout", json!(0.5)),
            "the model drops merges at random: `dropout` is `0.5`",
        ),
        (with("/model/vocab/ab", json!(1)), "two tokens have the same id: `1`"),
        (
            with("/model/vocab/ab", json!(4_000_000_000u32)),
            "ids are not dense: the largest is `4000000000` among 4 tokens",
        ),
        (
            with("/added_tokens/0/id", json!(7)),
            "added token `</s>` has id `7` in added_tokens, but `3` in the vocabulary",
        ),
        (with("/model/vocab", json!({})), "Token `a` out of vocabulary"),
        (with("/pre_tokenizer", regex("(a+)+$")), "a repetition inside a repetition"),
        (with("/normalizer", regex("(x*)*")), "a repetition inside a repetition"),
        (
            with(
                "/pre_tokenizer",
                json!({"type": "Sequence", "pretokenizers": vec![regex(&r"\p{L}".repeat(2000)); 4]}),
            ),
            "the patterns have more than 32768 bytes together",
        ),
        (
            with(
                "/normalizer",
                json!({"type": "Sequence", "normalizers": vec![json!({"type": "Replace", "pattern": {"String": "x".repeat(16000)}, "content": ""}); 40]}),
            ),
            "the patterns have more than 32768 bytes together",
        ),
        (with("/pre_tokenizer", regex("[")), "an open character class"),
        (with("/model/merges", json!(["a c"])), "Token `c` out of vocabulary"),
        (with("/version", json!("2.0")), "Unknown tokenizer version '2.0'"),
        (with("/model", json!(null)), "not a tokenizer"),
        ("{}".to_owned(), "not a tokenizer: missing field `model`"),
        (String::new(), "not a tokenizer: EOF while parsing"),
        ("[".repeat(100_000), "nested deeper than 64 levels"),
        (format!("{{\"a\":{}", "[".repeat(100_000)), "nested deeper than 64 levels"),
        (format!("{{\"normalizer\":[{}0]}}", "0,".repeat(1 << 20)), "values in `normalizer`"),
        (format!("{{\"model\":[{}0]}}", "0,".repeat(8 << 20)), "more than 3100000 values"),
    ] {
        let error = load(&json).expect_err(reason);
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}\nshould say {reason}");
    }
    if let Some(path) = support::data("tokenizers/hostile/merge-token-not-in-vocab.json") {
        let error = Tokenizer::from_dir_or_file(path).expect_err("refused").to_string();
        assert!(error.contains("Token `He` out of vocabulary"), "{error}");
    }
    let missing = Tokenizer::from_dir_or_file("/no/such/directory").expect_err("missing");
    assert_eq!(missing.to_string(), "no such file or directory: `/no/such/directory`");
}

/// Parts on which the library panics or misbehaves give an error or a working tokenizer.
#[test]
fn parts_that_the_library_does_not_check() {
    let template = |single: Value, special: Value| json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special});
    let special = json!([{"SpecialToken": {"id": "X", "type_id": 0}}]);
    let charsmap = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAAAAAA"});
    let long_charsmap = json!({"type": "Precompiled", "precompiled_charsmap": "/////wAAAAAA"});
    let inputs = [
        with("/post_processor", template(special.clone(), json!({}))),
        with("/post_processor", template(json!([]), json!({}))),
        with(
            "/post_processor",
            template(special, json!({"X": {"id": "X", "ids": [4_000_000_000u32], "tokens": []}})),
        ),
        with("/pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        with(
            "/pre_tokenizer",
            json!({"type": "Metaspace", "replacement": "", "prepend_scheme": "always"}),
        ),
        with("/pre_tokenizer", json!({"type": "CharDelimiterSplit", "delimiter": ""})),
        with("/pre_tokenizer", json!({"type": "ByteLevel"})),
        with("/normalizer", charsmap),
        with("/normalizer", long_charsmap),
        with("/normalizer", json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"})),
        with(
            "/normalizer",
            json!({"type": "Replace", "pattern": {"Regex": "a*"}, "content": "xx"}),
        ),
        with("/normalizer", json!({"type": "Prepend", "prepend": "é"})),
        with("/decoder", json!({"type": "Strip", "content": " ", "start": usize::MAX, "stop": 9})),
        with("/decoder", json!({"type": "Strip", "content": "b", "start": 3, "stop": 3})),
        with("/decoder", json!({"type": "WordPiece", "prefix": "", "cleanup": true})),
        with(
            "/decoder",
            json!({"type": "CTC", "pad_token": "a", "word_delimiter_token": "", "cleanup": true}),
        ),
        with("/model/continuing_subword_prefix", json!("éé")),
        with("/model/continuing_subword_prefix", json!("bbbbbbbb")),
        with("/model/end_of_word_suffix", json!("é")),
        with("/model/unk_token", json!("nothing")),
        with("/model", json!({"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]})),
        with(
            "/model",
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["", -1.0], ["a", 1e308]]}),
        ),
        with("/model", json!({"type": "Unigram", "unk_id": null, "vocab": [["a", 0.0]]})),
        with("/model", json!({"type": "WordLevel", "unk_token": "?", "vocab": {"a": 0}})),
        with(
            "/model",
            json!({"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "",
                "max_input_chars_per_word": 0, "vocab": {"a": 0}}),
        ),
        with(
            "/truncation",
            json!({"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 5}),
        ),
        with(
            "/padding",
            json!({"strategy": {"Fixed": 1u64 << 40}, "direction": "Left", "pad_to_multiple_of": 0,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}),
        ),
    ];
    let mut n_loaded = 0;
    for json in &inputs {
        let Ok(tokenizer) = load(json) else { continue };
        n_loaded += 1;
        let start = Instant::now();
        for text in ["", "ab", "é b</s>a\u{0}🙂  ", "zzz"] {
            // Either ids or an error.
            if let Ok(ids) = tokenizer.encode(text) {
                assert!(ids.len() < 1000, "{json}");
                tokenizer.decode(&ids, false);
                tokenizer.decode(&ids, true);
            }
        }
        tokenizer.decode(&[0, 1, 2, 3, u32::MAX], false);
        assert!(start.elapsed() < LIMIT, "{json}");
    }
    assert!(n_loaded > 5, "{n_loaded}");
}

/// Random damage to a tokenizer.json causes no panic.
#[test]
fn damaged_files_are_errors_or_tokenizers() {
    let valid = Tokenizer::train_byte_bpe(
        std::iter::once("hello there, hello world".repeat(9)),
        280,
        &default_special_tokens(),
    )
    .and_then(|tokenizer| tokenizer.files())
    .expect("trains");
    let json = &valid[0].1;
    let damage =
        (0..json.len(), prop::sample::select(b"{}[],:\"0919aenu\\-. \xff".to_vec()), 0..40usize);
    proptest!(ProptestConfig::with_cases(300), |(damage in prop::collection::vec(damage, 1..4))| {
        let mut bytes = json.clone();
        for (at, byte, gone) in damage {
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            let end = (at + 1 + gone.saturating_sub(30)).min(bytes.len());
            bytes.drain(at + 1..end);
        }
        if let Ok(tokenizer) = load(&String::from_utf8_lossy(&bytes)) {
            let ids = tokenizer.encode("hello <|im_end|> é").unwrap_or_default();
            tokenizer.decode(&ids, false);
        }
    });
}

fn render(source: &str) -> Result<String, Error> {
    let start = Instant::now();
    let outcome = ChatTemplate::from_source("hostile", source).and_then(|template| {
        template.render(&json!({"messages": [{"role": "user", "content": "x"}], "x": "x"}))
    });
    assert!(start.elapsed() < LIMIT, "{source:.100}: {:?}", start.elapsed());
    outcome
}

#[test]
fn templates_stop_at_their_limits() {
    let nested_loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}\
                        {{ c }}{% endfor %}{% endfor %}{% endfor %}";
    let silent_loops =
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let doubling = "{% set ns = namespace(s='x') %}{% for i in range(64) %}\
                    {% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s | length }}";
    let lists = "{% set ns = namespace(s=[1]) %}{% for i in range(64) %}\
                 {% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | length }}";
    let json_bomb = "{% set ns = namespace(s=[1,2,3,4,5,6,7,8]) %}{% for i in range(20) %}\
                     {% set ns.s = [ns.s, ns.s, ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}";
    let replace = "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(30) %}\
                   {% set ns.s = ns.s.replace('a', ns.s) %}{% endfor %}{{ ns.s | length }}";
    let nested_list = "{% set ns = namespace(s=[]) %}{% for i in range(99999) %}\
                       {% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}";
    let batches = "{% set ns = namespace(s=[1]) %}{% for i in range(99999) %}\
                   {% set ns.s = ns.s | map('list') | list %}{% endfor %}{{ ns.s }}";
    let shared = "{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(99) %}\
                  {% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}\
                  {{ ns.s == ns.t }}";
    let comparisons = "{% set a = range(50000) | list %}{% set b = range(50000) | list %}\
                       {% for i in range(99999) %}{{ [a] == [b] }}{% endfor %}";
    let memberships = "{% set a = range(50000) | list %}{% set b = range(50000) | list %}\
                       {% for i in range(99999) %}{{ a in [b] }}{% endfor %}";
    let tests = "{% set a = range(50000) | list %}{% set b = range(50000) | list %}\
                 {% for i in range(99999) %}{{ [a] is eq([b]) }}{{ [b] | select('in', [a]) | list }}\
                 {% endfor %}";
    let macros = "{% macro m(a, n) %}{{ m([a, a], n - 1) if n else a == [a] }}{% endmacro %}\
                  {{ m([1], 15) }}{{ m((1, 2), 99) }}";
    let with = format!("{}{{{{ a }}}}", "{% with a = a + a %}".repeat(40));
    let tuples = format!("{{{{ {}1{} == 1 }}}}", "(".repeat(100), ",)".repeat(100));
    let cycle = "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = [b] %}{{ a }}";
    let with = with.replacen("a + a", "[1]", 1) + &"{% endwith %}".repeat(40);
    for source in [
        nested_loops,
        silent_loops,
        doubling,
        lists,
        json_bomb,
        replace,
        nested_list,
        batches,
        shared,
        comparisons,
        memberships,
        tests,
        macros,
        &with,
        &tuples,
        cycle,
        "{% for i in range(99999) %}{{ messages[0][range(99999)] }}{% endfor %}",
        "{% for i in range(99999) %}{{ messages[0].get(range(99999)) }}{% endfor %}",
        "{% set a = namespace() %}{% set a.b = {a: 1} %}{{ a }}",
        "{% set a = namespace() %}{% set a.b = [{(1, a): 1}] %}{{ a == [a] }}",
        "{{ 'x' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ x | indent(1000000000) }}",
        "{{ x | center(1000000000) }}",
        "{{ '{:>1000000000}'.format('x') }}",
        "{{ '{:.1000000000f}'.format(1.0) }}",
        "{{ '{:{}}'.format('x', 1000000000) }}",
        "{{ '%*d' | format(1000000000, 1) }}",
        "{{ ('x' * 1000000) | replace('x', 'x' * 1000000) }}",
        "{{ range(0, 1000000000000) | list }}",
        "{{ range(10, 0, 0) }}",
        "{{ 2 ** 1000 }}",
        "{{ range(1000000000) | list }}",
        "{{ range(100000) | list | tojson(indent=64) | length }}{{ range(100000) | list | tojson(indent=64) | length }}",
        "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
        "{% macro m(n) %}{{ m(n - 1) ~ m(n - 1) if n > 0 }}{% endmacro %}{{ m(12) }}",
        "{% for m in [messages] recursive %}{{ loop([messages]) }}{% endfor %}",
        "{% for i in range(100000) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}",
    ] {
        let error = render(source).expect_err(source);
        assert!(
            matches!(
                error,
                Error::TemplateBudget { .. }
                    | Error::TemplateRender { .. }
                    | Error::TemplateSyntax { .. }
            ),
            "{source}: {error}"
        );
    }
}

/// A list that repeats a text is small until something writes, compares or hashes its texts. Each use is refused before.
#[test]
fn texts_in_lists_count_as_often_as_they_occur() {
    let list = "(['a' * 60000] * 20000)";
    let names = "([none] * 90000) | map('default', x * 60000, true)";
    let uses = [
        "{{ S | join | length }}",
        "{{ ''.join(S) | length }}",
        "{{ S | reverse | join | length }}",
        "{{ (S, S) | map('join') | list | length }}",
        "{{ S }}",
        "{{ S ~ '' }}",
        "{{ '' ~ S }}",
        "{{ S | string | length }}",
        "{{ S | pprint | length }}",
        "{{ S | upper | length }}",
        "{{ S | replace('b', 'c') }}",
        "{{ '%s' | format(S) | length }}",
        "{{ '{}'.format(S) | length }}",
        "{{ raise_exception(S) }}",
        "{{ 'a' in S | string }}",
        "{{ x in S }}",
        "{{ {S: 1} }}",
        "{{ {'a': 1}[S] }}",
        "{{ S | max }}",
        "{{ S | unique | list }}",
        "{% set y = S %}",
        "{% for y in S | join %}{% endfor %}",
        "{{ messages[S | join] }}",
    ];
    for source in uses
        .iter()
        .flat_map(|used| [used.replace('S', list), used.replace('S', &format!("({names})"))])
    {
        let error = render(&source).expect_err(&source);
        assert!(matches!(error, Error::TemplateBudget { .. }), "{source}: {error}");
    }
    for source in [
        "{{ ['a' * 60000] * 20000 ~ '' }}",
        "{{ 20000 * ['a' * 60000] ~ '' }}",
        "{% set ns = namespace(s=['a' * 60000]) %}{% for i in range(14) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | join | length }}",
        "{% set s = ['a' * 9999] * 999 %}{{ s + s + s + s + s + s + s + s + s ~ '' }}",
        "{{ range(100000) | map('tojson') | map('tojson') | list | length }}",
    ] {
        let error = render(source).expect_err(source);
        assert!(matches!(error, Error::TemplateBudget { .. }), "{source}: {error}");
    }
    // Legitimate use: a long conversation.
    let text = "{% set parts = [x * 1000000, x] %}{{ (parts | join ~ parts[0]) | length }}{{ x in parts }}";
    assert_eq!(render(text).expect("renders"), "2000001True");
}

/// Rendered text is tokenized before its length is compared with the context, so it may be a few times as long as the input.
#[test]
fn a_template_that_writes_much_for_little_is_refused() {
    let error =
        render("{% for i in range(300) %}{{ 'a' * 1000 }}{% endfor %}").expect_err("too long");
    assert!(matches!(error, Error::TemplateBudget { .. }), "{error}");
    assert!(error.to_string().contains("more than the limit of 262"), "{error}");
    let template =
        ChatTemplate::from_source("twice", "{{ messages[0].content }}{{ messages[0].content }}")
            .expect("compiles");
    let text = "word ".repeat(200_000);
    let context = serde_json::json!({"messages": [{"role": "user", "content": text}]});
    assert_eq!(template.render(&context).expect("renders").len(), 2 * text.len());
}

/// All added tokens become one automaton.
#[test]
fn very_long_added_tokens_are_refused() {
    let added: Vec<Value> = (0..300)
        .map(|id| {
            let content = format!("{id} {}", "a".repeat(4000));
            json!({"id": 3 + id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let error = load(&with("/added_tokens", json!(added))).expect_err("too long");
    assert!(error.to_string().contains("added tokens have"), "{error}");
    load(&with("/added_tokens", json!(added[..200]))).expect("within the limit");
}

/// Unusual arithmetic and arguments may give any result except a panic or a hang.
#[test]
fn unusual_expressions_do_not_panic() {
    for source in [
        "{{ '%1000000000d' % 1 }}",
        "{{ 1.5 | round(1000000000) }}{{ 1.5 | round(-1000000000) }}",
        "{{ (0 - 170141183460469231731687303715884105727 - 1) // -1 }}",
        "{{ 1 // 0 }}",
        "{{ 170141183460469231731687303715884105727 + 1 - 1e400 | int }}",
        "{{ 1 % 0 }}",
        "{{ 1e308 * 1e308 }}{{ (1e308 * 1e308) | int }}",
        "{{ 'é'[1:0:-1] }}{{ 'é'[-9223372036854775808:9223372036854775807] }}",
        "{{ [1, 2, 3][::-9223372036854775807] }}",
        "{{ x | tojson(indent=1000000000) }}{{ x | tojson(indent=-1) }}{{ x | tojson(separators=1) }}",
        "{{ strftime_now('%') }}{{ strftime_now('%-') }}{{ strftime_now('%é') }}",
        "{{ {'a': x}[x] }}{{ {[1]: 2} }}{{ {x: 2}.get([1], 3) }}",
        "{{ 'x'.split('') }}{{ ''.join([1, [2]]) }}{{ 'x'.replace('', 'y', -5) }}",
        "{{ loop }}{{ self }}{{ caller() }}{{ namespace }}{{ messages | map(attribute='a.b.c') | list }}",
        "{{ 'x' | int(base=1) }}{{ 'x' | int(base=99) }}{{ '9' * 60 | int }}",
        "{{ x is divisibleby(0) }}{{ 3 is divisibleby 0 }}{{ 3 is divisibleby 3 == true }}",
    ] {
        let _ = render(source);
    }
}

#[test]
fn templates_can_access_only_their_context() {
    for source in [
        "{% include '/etc/passwd' %}",
        "{% extends 'base' %}",
        "{% import 'x' as y %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ open('/etc/passwd') }}",
        "{{ self.__init__ }}",
        "{{ config }}{{ undefined.attribute }}",
        "{% for %}",
        "{{ 1 +",
        "{% if x %}",
        "{% generation %}never closed",
    ] {
        let outcome = render(source);
        assert!(outcome.is_err(), "{source}: {outcome:?}");
    }
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000));
    assert!(matches!(render(&deep), Err(Error::TemplateBudget { .. })));
    let blocks = format!("{}{}", "{% if x %}".repeat(3000), "{% endif %}".repeat(3000));
    assert!(render(&blocks).is_err());
    let large = " ".repeat((64 << 10) + 1);
    assert_eq!(
        render(&large).expect_err("too large").to_string(),
        "chat template `hostile` has 65537 bytes, more than the limit of 65536"
    );
    assert_eq!(
        render("{{ raise_exception('no ' ~ 'tools') }}").expect_err("raised").to_string(),
        "chat template `hostile` refuses these messages: `no tools`"
    );
    assert_eq!(
        render("a\n{{ x.y.z }}").expect_err("undefined").to_string(),
        "chat template `hostile` failed: undefined value (line 2)"
    );
}

/// A long conversation stays within the limits.
#[test]
fn long_conversations_render() {
    let tokenizer =
        Tokenizer::train_char(std::iter::once("word \n".to_owned()), &default_special_tokens())
            .expect("trains");
    let template = ChatTemplate::builtin("chatml").expect("a builtin");
    let words = "word ".repeat(100_000);
    let messages = [Message::new(Role::User, &words), Message::new(Role::Assistant, words.trim())];
    tokenizer.encode_chat(&messages, &template).expect("encodes");
    let many: Vec<Message> = (0..2000)
        .map(|i| Message::new([Role::User, Role::Assistant][i % 2], "word word word"))
        .collect();
    let text = tokenizer.render_chat(&many, &template, false).expect("renders");
    assert!(text.len() > 60_000);
}

/// Random damage to a published template causes no panic.
#[test]
fn damaged_templates_never_panic() {
    let Some(source) = support::text("chat-templates/llamacpp/Qwen-Qwen3-0.6B.jinja") else {
        return;
    };
    let pieces =
        ["{%", "%}", "{{", "}}", "'", "(", "[", "|", " for ", " not ", "\\", "{#", "-", "0", "é"];
    let damage = (0..source.len(), prop::sample::select(pieces.to_vec()), 0..30usize);
    proptest!(ProptestConfig::with_cases(300), |(damage in prop::collection::vec(damage, 1..3))| {
        let mut damaged = source.clone();
        for (at, piece, gone) in damage {
            let start = damaged.floor_char_boundary(at);
            let end = damaged.floor_char_boundary((start + gone).min(damaged.len()));
            damaged.replace_range(start..end, piece);
        }
        let _ = render(&damaged);
    });
}
