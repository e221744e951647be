key() {
  case $1 in
    '' | *[!ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-]*) ;;
    *) [ "${#1}" -le 64 ] && { printf '%s\n' "$1"; return; } ;;
  esac
  printf '~%s\n' "$(printf '%s' "$1" | sha256sum | cut -c1-32)"
}
