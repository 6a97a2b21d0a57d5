"""Where qworker's outcomes are not those of Celery's worker, and why. Whatever is not listed is the same
in all fleets; what is listed differs where qworker is alone, and may in the mixed fleet.
"""

DIFFERENCES = {
    "arguments_in_a_chain_that_do_not_fit": "a step whose arguments do not fit fails itself, not the step before it",
    "the_family_of_a_map": "an item of a map sees the request of the map; in Celery none",
    "a_retry_sees_its_number": "a retry keeps the properties of its message, such as `app_id`",
    "by_an_empty_chain": "an empty chain is refused to the task that would be replaced by it, as an error of its client",
    "a_member_adds_members": "a task cannot add members to the chord that it is in",
    "a_member_adds_a_chord": "a task cannot add members to the chord that it is in",
}

# Errbacks of the new style are called with all they take by workers that know their parameters: in the
# mixed fleet others get the id alone, or less than they take.
MIXED = {
    name: "an errback of another worker gets the id alone, whatever it takes"
    for name in """
        a_body_that_fails a_body_that_is_a_chain_and_fails a_body_that_is_a_chain_and_fails_at_its_end
        a_body_that_is_a_group_and_fails a_header_of_one_that_fails a_header_with_a_chain_that_fails
        a_header_with_a_chain_that_fails_at_its_end a_header_with_a_group_that_fails
        a_task_with_an_errback_of_the_new_style an_errback_that_takes_all
    """.split()
}
