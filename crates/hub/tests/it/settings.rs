//! Settings as huggingface_hub 2.4 reads them from the environment.

use std::collections::BTreeMap;
use std::time::Duration;

use hub::Settings;
use hub_local::Environment;

/// Settings of an environment of these variables; `HOME` is the given directory.
fn read(home: &std::path::Path, variables: &[(&str, &str)]) -> hub::Result<Settings> {
    let mut all: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    all.entry("HOME".to_owned()).or_insert_with(|| home.display().to_string());
    let variable = move |name: &str| all.get(name).cloned();
    Settings::read(&Environment::new(&variable))
}

#[test]
fn token_and_endpoint() {
    let home = tempfile::tempdir().expect("a directory");
    let token = |variables: &[(&str, &str)]| read(home.path(), variables).expect("settings").token;
    assert_eq!(token(&[]), None);
    let write = |path: &str, text: &str| {
        let path = home.path().join(path);
        fsio::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fsio::write_atomic(path, text).expect("a file");
    };
    write(".cache/huggingface/token", "  of_file\n");
    write("hf/token", "of_hf_home");
    write("elsewhere", "of_path\r\n");
    assert_eq!(token(&[]).as_deref(), Some("of_file"));
    assert_eq!(token(&[("HF_HOME", "~/hf")]).as_deref(), Some("of_hf_home"));
    assert_eq!(token(&[("HF_HOME", "$HOME/hf")]).as_deref(), Some("of_hf_home"));
    assert_eq!(token(&[("HF_TOKEN_PATH", "${HOME}/elsewhere")]).as_deref(), Some("of_path"));
    assert_eq!(
        token(&[("HF_TOKEN", " a\n"), ("HUGGING_FACE_HUB_TOKEN", "b")]).as_deref(),
        Some("a")
    );
    assert_eq!(token(&[("HF_TOKEN", ""), ("HUGGING_FACE_HUB_TOKEN", "b")]).as_deref(), Some("b"));
    assert_eq!(token(&[("HF_TOKEN", " \n")]).as_deref(), Some("of_file"));
    assert_eq!(token(&[("HF_TOKEN", "a"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes")]), None);
    assert_eq!(token(&[("XDG_CACHE_HOME", "/nonexistent")]), None);
    let settings =
        read(home.path(), &[("HF_ENDPOINT", "https://mirror.example/hub//")]).expect("settings");
    assert_eq!(settings.endpoint, "https://mirror.example/hub");
    assert_eq!(read(home.path(), &[]).expect("settings").endpoint, "https://huggingface.co");
    assert!(read(home.path(), &[("TRANSFORMERS_OFFLINE", "1")]).expect("settings").is_offline);
    let patient = read(home.path(), &[("HF_HUB_DOWNLOAD_TIMEOUT", "30")]).expect("settings");
    assert_eq!(patient.timeout, Duration::from_secs(30));
}

#[test]
fn bad_settings_are_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let cases: [&[(&str, &str)]; 6] = [
        &[("HF_ENDPOINT", "")],
        &[("HF_ENDPOINT", "huggingface.co")],
        &[("HF_ENDPOINT", "https://user:word@mirror.example")],
        &[("HF_ENDPOINT", "http://mirror.example"), ("HF_TOKEN", "a")],
        &[("HF_TOKEN", "a b")],
        &[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")],
    ];
    for case in cases {
        let error = read(home.path(), case).expect_err("refused");
        assert!(error.is_input() && error.hint().is_some(), "{case:?}: {error}");
    }
    // Within this machine, or without a token, http is fine.
    assert!(read(home.path(), &[("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_TOKEN", "a")]).is_ok());
    assert!(read(home.path(), &[("HF_ENDPOINT", "http://mirror.example")]).is_ok());
    let settings = read(home.path(), &[("HF_TOKEN", "hf_secret")]).expect("settings");
    assert!(!format!("{settings:?}").contains("hf_secret"));
    fsio::write_atomic(home.path().join("no.pem"), "nothing").expect("a file");
    let no_pem = home.path().join("no.pem").display().to_string();
    let settings = read(home.path(), &[("SSL_CERT_FILE", &no_pem)]).expect("settings");
    let request = crate::support::request(home.path());
    let error = hub::get(&settings, &request, &mut crate::support::Events::default())
        .expect_err("no certificate");
    assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
}
