# Completions of qworker for fish.
complete --command qworker --no-files --keep-order --arguments '(command qworker complete -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token --cut-at-cursor) 2>/dev/null)'
