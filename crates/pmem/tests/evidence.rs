//! The wrong order of steps does not compile.

#[test]
fn steps_out_of_order_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/compile_pass/right_order.rs");
    for case in [
        "store_meta_without_ordered",
        "store_meta_with_flushed",
        "settle_without_durable",
        "settle_with_ordered",
        "settle_unstaged",
        "flushed_used_twice",
        "flushed_in_another_thread",
        "staged_used_twice",
        "evidence_forged",
        "evidence_constructed",
        "evidence_copied",
    ] {
        cases.compile_fail(format!("tests/compile_fail/{case}.rs"));
    }
}
