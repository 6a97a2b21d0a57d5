# Completions of qworker for bash.
_qworker() {
    # Bash cuts words at = : @ too: put them together as the command will get them.
    local -a words=()
    local left=${COMP_LINE:0:COMP_POINT} blank part i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        blank=${left%%[![:blank:]]*}
        left=${left#"$blank"}
        if ((i == COMP_CWORD)); then part=$left; else part=${COMP_WORDS[i]}; fi
        left=${left#"$part"}
        if ((i == 0)) || [[ -n $blank ]]; then words+=("$part"); else words[-1]+=$part; fi
    done
    # Only what stands behind the last cut is replaced, with the @ that stands there.
    [[ $part =~ ^[=:]+$ ]] && part=
    local kept=${words[-1]%"$part"}
    kept=${kept%@}
    local IFS=$'\n' line
    COMPREPLY=()
    for line in $(command qworker complete -- "${words[@]}" 2>/dev/null); do
        line=${line%%$'\t'*}
        COMPREPLY+=("${line#"$kept"}")
    done
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace
}
complete -o nosort -F _qworker qworker
