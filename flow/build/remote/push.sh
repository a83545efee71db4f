# Unpacks stdin beside $destination and puts it into its place when it is whole: its last file says so.
part=$destination.part-$token
trap 'rm -rf -- "$part"' EXIT
mkdir -p -- "$part" || exit
LC_ALL=C tar -C "$part" -xof - || exit
rm -- "$part/$token" || exit # a tar that is cut between two files looks whole
rm -rf -- "$destination"
mv -- "$part" "$destination"
