//! Names of workloads, and the JSON line of a report.

use bench::{Clock, NAMES, Report, Workload};

/// One repetition of a workload on the CPU.
fn once(workload: Workload) -> Report {
    let cpu = kernels::device("cpu").expect("the CPU");
    bench::run(workload, Some(1), Clock::start(), &cpu).expect("a report")
}

#[test]
fn every_name_is_known_and_an_unknown_one_is_refused_with_the_list() {
    for name in NAMES {
        assert!(Workload::named(name).is_ok(), "{name}");
    }
    let error = Workload::named("pretrain8m").expect_err("no such workload");
    assert_eq!(error.to_string(), "unknown workload: `pretrain8m`");
    assert!(error.hint().is_some_and(|hint| hint.contains("pretrain7m")));
}

#[test]
fn a_report_has_the_fields_of_other_frameworks() {
    let workload = Workload::named("gen7m").expect("a name");
    let line = once(workload).to_json();
    assert_eq!(line["workload"], "gen7m");
    assert_eq!(line["times"].as_array().map(Vec::len), Some(1));
    assert!(line["tokens_per_s"].as_f64().is_some_and(|rate| rate > 0.0));
    assert!(line["first_step_s"].as_f64().is_some_and(|seconds| seconds > 0.0));
    if cfg!(target_os = "linux") {
        assert!(line["peak_rss_mb"].as_u64().is_some_and(|mb| mb > 30));
    }
}

#[test]
fn an_update_counts_episodes() {
    for name in ["ppo7m", "grpo7m"] {
        let workload = Workload::named(name).expect("a name").with_rows(2);
        let line = once(workload).to_json();
        assert!(line["episodes_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{name}");
        assert!(line.get("tokens_per_s").is_none(), "{name}");
    }
}

#[test]
fn a_changed_shape_is_not_comparable() {
    let named = Workload::named("reward7m").expect("a name");
    let changed = once(named.with_rows(3));
    let line = changed.to_json();
    assert_eq!((line["rows"].as_u64(), line["comparable"].as_bool()), (Some(4), Some(false)));
    let gen7m = Workload::named("gen7m").expect("a name");
    let line = once(gen7m).to_json();
    assert!(line.get("comparable").is_none());
}
