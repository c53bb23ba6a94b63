# Gives the volume to the service's user, and goes on as that user. A fresh volume belongs to root.
set -e
if [ "$(id -u)" = 0 ]; then
  find /data ! -user 10001 -exec chown -h 10001:10001 {} +
  export HOME=/data # libpq looks for certificates there, and may not look into root's
  exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs "$@"
fi
exec "$@"
