"""The threat model: what is not protected, and for each threat the defence and the tests that show it.

`page()` is called by docs/generate.py; it fails where a test named here does not exist.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from dure.guard.permissions import ACTIONS, ROLES

TESTS = Path(__file__).parents[1] / "tests"

NOT_PROTECTED: tuple[tuple[str, str], ...] = (
    (
        "The hub's process sees working totals",
        "Masks hide each hospital's part, not the sum. Totals of every round are exact, and the hub's "
        "administrator can "
        "read them in the ledger. With few hospitals, or beside outside knowledge, a total says something of people.",
    ),
    (
        "A hub that lies in what it asks",
        "Masks, signatures and sets hold against any message. That all hospitals answer from the same is held by "
        "checks that five reviews attacked; each found ways around them in what hospitals keep and in how methods "
        "read a state that no honest hub sends. Those are closed and tested; nobody has proved that there are no more.",
    ),
    (
        "A hub that chooses its questions",
        "All hospitals of a sum are asked the same and sign it. That a round's state follows from the totals before "
        "it, nobody checks: a hub that lies can ask for totals that no honest run would (of a formula over other "
        "columns of the study, at many points, for ever), and, if it knows how one hospital's patients differ, "
        "choose a state for which the others have nothing to add. Estimates that are combined from totals "
        "(`meta_analysis`, `show: totals`) are single hospitals' estimates for such a hub. And it can use two "
        "studies with the same step, one with a hospital and one without: hospitals compare sums within a study, "
        "only the hub compares studies.",
    ),
    (
        "Two groups within one cohort",
        "Cohorts are compared with cohorts; what lies within one, flags, levels and who has a value, is not. A "
        "proposer whose study has two flags that differ by one person (a value from 380 on, and from 380 to 602) "
        "gets two released models, each within the rules, whose exact coefficients together tell what that person "
        "has: right for certain, not 0.50. A board's packet names variables that are made of the same records with "
        "other limits; boards have to decide.",
    ),
    (
        "A total in which one hospital has people",
        "A sum is of three hospitals that are asked. Where a criterion, a variable that the others do not record, "
        "or a step inside hospitals leaves one of them alone with people, the released total is that hospital's, "
        "without its permit for `per_hospital`. Nothing counts how many hospitals have somebody in a sum.",
    ),
    (
        "That something was refused",
        "A proposer sees which steps were refused before anything is released: each says whether some total was "
        "below ten, or a hospital's permission was missing. Nothing counts them within a study.",
    ),
    (
        "A signed `difference` cannot be called back",
        "A hub that lies can show a hospital's permit with `difference` to the others until it expires, also after "
        "the hospital has left without it. And who permits it hides others no longer: of three hospitals between two "
        "sums, two that permit it leave the third alone.",
    ),
    (
        "Hospitals that join forces with the hub",
        "A hub that keeps to the protocol learns no more with fewer hospitals than the threshold of shares "
        "(half of them "
        "and one). A hub that sends whatever it likes is held only while no hospital helps it (one, in a sum "
        "of an even "
        "number). All hospitals but one always know the last one's part: the total minus theirs.",
    ),
    (
        "The first sight of a key is trusted",
        "A hospital pins the others' keys when the hub first shows them. A hub that lies from the first day "
        "could stand "
        "in for all others. `dure site peers` shows fingerprints to be compared by telephone; nothing forces it.",
    ),
    (
        "Whoever administers a hospital's machine",
        "Keys, database, accounts and settings lie in the hospital's folder. Whoever can write there is "
        "stronger than "
        "the permissions table. The audit log's countersigned heads show afterwards that something was rewritten.",
    ),
    (
        "Whoever keeps the accounts",
        "An office that keeps the hub's accounts can open a second account and approve twice. The log names every "
        "account and every approval; approvals given before an account was closed count.",
    ),
    (
        "A folder without accounts",
        "Until its first account, whoever holds the folder of a hub or a hospital decides alone, a release too.",
    ),
    (
        "Coefficients travel to every hospital",
        "A model's coefficients and means after each round are told to all hospitals. With three hospitals "
        "each knows "
        "its own part and can learn something of the other two together.",
    ),
    (
        "Many different cohorts",
        "Cohorts that differ by ten people or more are allowed one by one. A cohort A beside B and C that add "
        "up to it but for one person is not found, and nothing counts how many clearly different cohorts a proposer "
        "asks for. The cap on released numbers and the lockout go by a cohort's wording: a criterion that excludes "
        "nobody starts them anew. A refusal for overlap tells that the cohorts differ by a few people, and only "
        "refusals are counted. Boards have to look ([history](history.md)).",
    ),
    (
        "Who proposes, and what exists",
        "That a study is a proposer's is the hub's word: a hub that lies can spread open questions over invented "
        "names, each with a budget of its own, at hospitals that offer them. Whoever submits a study's exact text "
        "learns that it is known, and where it stands.",
    ),
    (
        "Narrow cells in working totals",
        "Searches for edges and quantiles (`trees`, `quantiles`) halve cells of numbers until they are "
        "narrow. The hub's "
        "process and ledger then hold exact counts, of one person too, in cells that tell a value to many "
        "digits, though "
        "not whose it is. None of them is released.",
    ),
    (
        "A row declared as a sum",
        "The gate cannot tell a patient's row from a sum of the same shape. What stands against it is the "
        "permit, which "
        "binds a method's source, and the masks.",
    ),
    (
        "A permitted study at its cap tells a little",
        "0.33 released numbers a person, all about one secret, guess it at 0.62 instead of 0.50 (theory and "
        "test agree). "
        "The bound of 0.55 holds for open questions, which draw on a budget.",
    ),
    (
        "What a hospital answers alone",
        "Steps of scope `each` leave as released results, under all rules on that hospital alone; masks do "
        "not apply, "
        "and the cap on released numbers does not count them.",
    ),
    (
        "Code that a hospital permitted",
        "A permit names the source of methods by hash. Nothing confines that code at the hospital beyond "
        "memory, cores "
        "and time, nor at the hub.",
    ),
    (
        "Weights of learned models",
        "No membership test is run on weights before later steps use them; they are never part of a released result.",
    ),
    (
        "Traffic",
        "Who talks to the hub, when, and how much, can be seen on the line. A hub can refuse to serve: it can stop a "
        "study, not falsify it unseen.",
    ),
    (
        "A difference of two columns",
        "A dummy of three people hidden in the difference of two columns of numbers yields a released model "
        "(a strict "
        "expected failure among the tests).",
    ),
)

THREATS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "The hub's operator reads one hospital's sums",
        "Secure sums are the default: two masks, shares for those who drop out, one signed set "
        "([protocol](secure-sum.md))",
        (
            "attacks/test_secure_sum.py::test_masked_bytes_are_uniform_and_bare_ones_are_not",
            "attacks/test_secure_sum.py::test_nothing_beside_the_vector_tells_of_the_numbers",
            "secure_sum/test_every_method.py::test_a_lossless_method_gives_the_same_bytes_as_exact_summation",
        ),
    ),
    (
        "A hub that breaks the protocol: swapped keys, replay, overlapping or second sets, unsigned sets, "
        "forged shares, different questions, sums that add up to one hospital",
        "Pinned Ed25519 keys sign keys and sets; masks cancel only between equal questions; a study's sums are made "
        "among one group, lie within each other, and are signed by more than half of it",
        (
            "attacks/test_secure_sum.py::test_a_hospital_that_is_asked_something_else_than_the_others_shows_nothing",
            "hub/test_summing.py::test_a_sum_builds_on_the_same_earlier_answers_at_every_hospital",
            "hub/test_summing.py::test_an_answer_is_not_repeated_once_it_would_build_on_more",
            "hub/test_summing.py::"
            "test_an_earlier_step_that_tells_hospitals_apart_needs_their_permits_for_later_ones_too",
            "attacks/test_secure_sum.py::test_no_hospital_says_that_its_numbers_are_beyond_the_range_of_a_sum",
            "attacks/test_secure_sum.py::test_an_attack_works_without_its_check_and_is_refused_with_it",
            "attacks/test_secure_sum.py::test_every_check_of_a_hospital_has_an_attack",
            "attacks/test_secure_sum.py::test_keys_that_agree_on_nothing_are_refused",
        ),
    ),
    (
        "S(all) − S(all but one): a hospital's part from two totals",
        "`difference` in the permit of each hospital concerned: checked by every hospital within a study (steps, "
        "runs, rounds), and by the hub across studies of the same cohort as they are worded",
        (
            "attacks/test_differences_between_hospitals.py::"
            "test_leaving_each_hospital_out_opens_their_sums_and_needs_their_permission",
            "attacks/test_differences_between_hospitals.py::test_a_hospital_that_withdraws_between_two_steps",
            "attacks/test_differences_between_hospitals.py::test_a_second_study_with_one_hospital_fewer",
            "attacks/test_who_takes_part.py::test_a_set_of_hospitals_is_remembered_for_the_whole_run",
        ),
    ),
    (
        "Differencing: two cohorts that differ by one person",
        "Overlap audit at the hospital; equivalent questions get the stored answer; lockout after seven",
        (
            "attacks/test_differencing.py::test_differencing_reads_a_secret_unless_cohorts_are_compared",
            "attacks/test_differencing.py::test_many_pairs_about_one_person_end_in_a_lockout",
            "guard/test_history.py::test_an_equivalent_question_gets_the_stored_answer",
        ),
    ),
    (
        "Reconstruction from many counts",
        "Cap on released numbers for each cohort, across studies; a differential-privacy budget for open questions",
        (
            "attacks/test_reconstruction.py::test_many_free_counts_reconstruct_everybody_unless_they_draw_on_a_budget",
            "attacks/test_reconstruction.py::test_a_study_that_boards_permitted_tells_no_more_than_its_cap",
            "guard/test_budget.py::test_beyond_the_budget_a_hospital_refuses_by_name",
        ),
    ),
    (
        "Is this known person in the cohort?",
        "Sums over three hospitals or more; rounding, small cells, `per_hospital` only by permit",
        (
            "attacks/test_known_vector.py::"
            "test_a_known_person_is_found_in_one_hospitals_exact_sums_and_not_in_what_is_released",
            "attacks/test_known_vector.py::test_sums_of_one_or_two_hospitals_do_not_leave",
        ),
    ),
    (
        "A person's row from a gradient",
        "Cohorts of ten people or none, the overlap audit, masks",
        ("attacks/test_score_inversion.py::test_a_score_gives_rows_back_unless_cohorts_have_people_and_history",),
    ),
    (
        "Three people in a model, a table or a curve",
        "The gate counts people behind every cell, however a column is coded; release suppresses with complements",
        (
            "attacks/test_three_people.py::test_a_model_on_three_people_is_refused",
            "attacks/test_three_people.py::test_three_people_in_a_table_or_a_curve_are_not_shown",
            "attacks/test_suppressed_cells.py::"
            "test_no_cell_of_two_crossed_columns_follows_from_rows_columns_and_the_total",
            "attacks/test_statistics.py::test_weights_do_not_make_a_model_of_one_person",
        ),
    ),
    (
        "A method that sends something else than it declared",
        "The gate compares names, shapes and kinds with the declaration; permits bind sources by hash",
        (
            "attacks/test_malicious_method.py::test_a_trick_is_stopped_and_nothing_leaves",
            "attacks/test_malicious_method.py::test_a_hub_that_changes_the_state_cannot_make_a_hospital_declare_more",
        ),
    ),
    (
        "A study that is not the one the boards read",
        "Permits are signed and name the study, every step, the cohort, sources, rules and dates; one changed "
        "byte and "
        "the runner refuses; a new version voids approvals; rules hold as they were permitted",
        (
            "site/test_runner.py::test_a_rule_that_was_loosened_after_the_permit_was_signed_holds_as_it_was_permitted",
            "site/test_packet.py::test_a_proposers_words_cannot_look_like_those_of_the_packet",
            "site/test_packet.py::test_nobodys_names_can_look_like_words_of_the_packet",
            "site/test_reviews.py::test_one_changed_byte_of_permit_or_study_and_the_runner_refuses",
            "site/test_reviews.py::test_a_new_version_voids_every_approval_and_says_what_changed",
            "site/test_reviews.py::test_one_boards_approval_signs_nothing_and_two_sign_what_both_allowed",
            "site/test_reviews.py::test_an_approval_counts_from_the_day_it_was_given_and_is_asked_for_again_afterwards",
        ),
    ),
    (
        "A forged or recorded decision of a shared board",
        "Signed with the board's key, which the hospital's own settings name; an older decision never replaces a "
        "newer, none from before the hospital left opens anything, and an approval counts from its own date",
        (
            "site/test_reviews.py::test_a_shared_boards_approval_counts_from_the_day_it_was_signed",
            "site/test_reviews.py::test_a_no_counts_though_the_boards_clock_was_fast_when_it_approved",
            "site/test_reviews.py::test_an_old_approval_that_is_shown_again_opens_nothing",
            "site/test_reviews.py::test_an_approval_that_was_kept_back_opens_nothing_whatever_the_hospital_said_since",
            "site/test_reviews.py::test_a_decision_signed_by_somebody_else_or_older_than_the_last_opens_nothing",
            "site/test_reviews.py::test_a_shared_boards_decision_for_others_opens_nothing",
        ),
    ),
    (
        "Results released by one person, or other results than were read",
        "Two people approve the digest of exactly the content; nobody decides on their own study; what is fetched is "
        "compared with what was approved",
        (
            "hub/test_releases.py::test_two_people_release_what_the_proposer_asked_for",
            "hub/test_releases.py::test_an_approval_is_of_exactly_what_was_read",
            "hub/test_releases.py::test_an_approval_is_of_the_context_that_was_read",
            "hub/test_releases.py::test_an_approval_names_the_whole_digest",
            "hub/test_releases.py::test_what_others_say_is_shown_without_what_steers_a_terminal",
            "hub/test_releases.py::test_a_hidden_step_with_a_hospital_that_left_takes_with_it_what_builds_on_it",
            "hub/test_releases.py::test_what_is_fetched_is_what_was_approved",
        ),
    ),
    (
        "Somebody does what their role does not allow",
        "One table, deny by default, asked by every command and every topic",
        (
            "services/test_roles.py::test_over_a_members_line_the_table_decides",
            "services/test_roles.py::test_in_the_hubs_folder_the_table_decides",
            "services/test_roles.py::test_in_a_hospitals_folder_the_table_decides",
            "services/test_roles.py::test_a_company_sees_its_own_studies_and_not_that_there_are_others",
        ),
    ),
    (
        "Guessed and stolen passwords",
        "Argon2id, five attempts in a quarter of an hour, sessions that end, nothing stored that signs in",
        (
            "guard/test_accounts.py::test_many_attempts_at_once_are_no_way_around_the_limit",
            "guard/test_accounts.py::test_an_unknown_name_costs_the_work_of_a_known_one",
            "guard/test_accounts.py::test_neither_token_nor_password_is_anywhere_in_the_folder",
        ),
    ),
    (
        "A log that is rewritten, cut, shown in two versions, or spoilt by what somebody sends",
        "Merkle trees (RFC 6962) whose signed heads hub and hospitals countersign ([audit](audit.md)); a line is "
        "written as it will be read",
        (
            "guard/test_records.py::test_whatever_is_written_the_log_reads_back",
            "guard/test_heads.py::test_a_log_that_never_brings_a_proof_is_noted_once",
            "guard/test_heads.py::test_no_head_is_signed_over_a_line_that_a_loss_of_power_could_take",
            "site/test_service.py::test_a_question_whose_fields_are_of_another_kind_is_refused_and_written_nowhere",
            "services/test_tree_heads.py::"
            "test_after_a_run_everybody_has_seen_everybodys_log_and_a_rewritten_one_is_caught",
            "services/test_tree_heads.py::test_a_hospital_that_rewrites_its_own_log_is_caught_by_the_hub",
            "guard/test_merkle.py::test_a_proof_with_one_bit_changed_holds_no_more",
        ),
    ),
    (
        "Numbers that left and nobody knows",
        "Every array is written into the hospital's own list before it is sent",
        (
            "site/test_egress.py::test_every_number_that_the_hub_received_is_in_the_list",
            "site/test_egress.py::test_what_left_under_masks_is_listed_with_its_numbers_all_the_same",
        ),
    ),
    (
        "Patients' values in messages, stores, memory, logs",
        "Errors carry names only; the hub cannot import what reads rows; marked patients are searched for "
        "([canary](threat-model-canary.md))",
        (
            "attacks/test_no_values_in_errors.py::test_no_value_stands_in_an_error_or_its_bytes",
            "architecture/test_processes.py::test_a_hub_that_runs_studies_loads_nothing_that_reads_a_row",
            "attacks/test_canary.py::*",
        ),
    ),
    (
        "Strangers, former members, recordings, floods on the line",
        "mTLS with the alliance's own authority, signed frames in fresh sessions, limits before memory is given",
        (
            "services/test_refusals.py::test_a_certificate_of_another_authority",
            "services/test_refusals.py::test_a_replayed_request",
            "services/test_refusals.py::test_a_revoked_member_and_its_return",
            "services/test_refusals.py::test_an_oversized_message",
        ),
    ),
    (
        "Crashes that lose an approval or change a number",
        "State before answer, files that are whole and synced, stored replies; a masked sum survives dropouts at every "
        "exchange",
        (
            "faults/test_governed.py::*",
            "site/test_power.py::*",
            "site/test_reviews.py::test_a_clock_that_was_set_back_brings_no_permit_back",
            "faults/test_dropouts.py::test_a_dropout_at_any_stage_changes_no_number",
            "faults/test_services.py::test_fifty_random_moments",
            "secure_sum/test_protocol.py::test_every_set_of_dropouts_at_every_exchange",
        ),
    ),
    (
        "Code hidden in a formula",
        "A parser of our own grammar; nothing of it is evaluated",
        ("attacks/test_formulas_carry_no_code.py::test_code_in_a_formula_is_an_error",),
    ),
)


@cache
def _defined(file: str) -> frozenset[str]:
    path = TESTS / file
    if not path.is_file():
        raise SystemExit(f"docs/threats.py names tests/{file}, which does not exist")
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test"))


def _shown(tests: tuple[str, ...]) -> Iterator[str]:
    for test in tests:
        file, _, name = test.partition("::")
        known = _defined(file)
        if name == "*":
            yield from (f"`tests/{file}::{one}`" for one in sorted(known))
        elif name in known:
            yield f"`tests/{file}::{name}`"
        else:
            raise SystemExit(f"docs/threats.py names {name} in tests/{file}, which does not exist")


def page() -> str:
    """docs/threat-model.md."""
    open_ = "\n".join(f"- **{name}.** {said}" for name, said in NOT_PROTECTED)
    rows = [f"| {threat} | {defence} | {'<br>'.join(_shown(tests))} |" for threat, defence, tests in THREATS]
    return "\n\n".join(
        [
            "# Threat model",
            "For security officers, boards and whoever attacks this. First what is not protected, then each "
            "threat with "
            "its defence and the tests that show it. Every attack in `tests/attacks` first succeeds against an "
            "unprotected twin in the same test.",
            "## What is not protected",
            open_,
            "## Threats, defences, tests",
            "\n".join(["| threat | defence | test that shows it |", "| --- | --- | --- |", *rows]),
            "Who may do what: [reference/permissions.md](reference/permissions.md). Rules and limits, and "
            "what is not "
            "enforced: [reference/rules.md](reference/rules.md).",
        ]
    )


def permissions() -> str:
    """docs/reference/permissions.md: the one table, cell by cell."""
    marks: Mapping[str, str] = {"any": "yes", "own": "own"}
    parts = [
        "# Permissions",
        "One table, `dure.guard.permissions`: role × action × whose. `own`: only of studies that the person's own "
        "organisation proposed. An empty cell is denied. [People](../people.md) says who they are.",
    ]
    for place, title in (("hub", "At the hub"), ("site", "Inside a hospital")):
        roles = [role for role in ROLES if any(role in a.who for a in ACTIONS.values() if a.place == place)]
        head = f"| action | {' | '.join(ROLES[role].en for role in roles)} |"
        rows = [
            f"| `{action.name}`: {action.says.en}<br>{action.says.ko} | "
            + " | ".join(marks.get(action.who.get(role, ""), "") for role in roles)
            + " |"
            for action in ACTIONS.values()
            if action.place == place
        ]
        parts += [f"## {title}", "\n".join([head, "| --- |" + " --- |" * len(roles), *rows])]
    return "\n\n".join(parts)
