# What a task asks of the qworker worker that runs it, for POSIX shells. Read it with
#
#     . /usr/share/doc/qworker/examples/clients/qworker_task.sh
#
# and call, for example, `task_progress 3 10`, or `task_retry --countdown 30`. Those that decide what
# the end of the task means end the script too. QWORKER names the program, if it is not on PATH.

task_request() { "${QWORKER:-qworker}" task request; }
task_update_state() { "${QWORKER:-qworker}" task update-state "$@"; }
task_progress() { "${QWORKER:-qworker}" task progress "$@"; }
task_call() { "${QWORKER:-qworker}" task call "$@"; }

task_retry() { "${QWORKER:-qworker}" task retry "$@" && exit 0; }
task_reject() { "${QWORKER:-qworker}" task reject "$@" && exit 0; }
task_ignore() { "${QWORKER:-qworker}" task ignore && exit 0; }
task_replace() { "${QWORKER:-qworker}" task replace "$@" && exit 0; }

# task_fail CLASS MESSAGE [MODULE]
task_fail() {
    "${QWORKER:-qworker}" task fail --type "$1" --message "$2" --module "${3:-builtins}" && exit 0
}
