#compdef qworker
# Completions of qworker for zsh.
_qworker() {
    local -a described folders
    local line value
    for line in "${(@f)$(command qworker complete -- "${(@)words[1,CURRENT-1]}" "$PREFIX" 2>/dev/null)}"; do
        value=${line%%$'\t'*}
        case $value in
        "") ;;
        */) folders+=("$value") ;;
        *) described+=("${value//:/\\:}:${line#*$'\t'}") ;;
        esac
    done
    (( $#folders )) && compadd -S '' -- "${folders[@]}"
    (( $#described )) && _describe -V qworker described
}
# Loaded by name it is the completion itself; read as a script it makes it known.
if [[ ${funcstack[1]} == _qworker ]]; then _qworker "$@"; else compdef _qworker qworker; fi
