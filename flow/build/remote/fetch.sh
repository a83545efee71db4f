# Packs those of the names "$@" that exist in $source, links as what they point to.
cd -- "$source" || exit
for name in "$@"; do
    shift
    [ ! -e "$name" ] || set -- "$@" "./$name"
done
[ $# -eq 0 ] || LC_ALL=C tar -chf - "$@"
