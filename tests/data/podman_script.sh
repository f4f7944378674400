#!/bin/sh
# What a user of podman types, one command per step; it runs unchanged with rp as the ENGINE.
#
# Each step prints a line "== NAME: exit N, stdout N bytes, stderr N bytes" and then those bytes.
# tests/namespace/test_podman_script.py runs it with podman and with rp and compares the steps.
#
# ENGINE  the program
# PORT    a port of this machine that nobody uses
set -u
export LC_ALL=C.UTF-8 TZ=UTC
started=$(date +%s)
engine=$ENGINE
directory=$(mktemp -d)
work=$directory/work
mkdir "$work"
cd "$work" || exit 1

step() {
    (eval "$2") >"$directory/stdout" 2>"$directory/stderr" </dev/null
    code=$?
    out=$(wc -c <"$directory/stdout") err=$(wc -c <"$directory/stderr")
    printf '== %s: exit %d, stdout %d bytes, stderr %d bytes\n' "$1" "$code" "$out" "$err"
    cat "$directory/stdout" "$directory/stderr"
}

# Wait for something to come true; what is wrong otherwise is the next step's to show.
await() {
    for _ in $(seq 600); do
        if eval "$1" >"$directory/awaited" 2>&1; then
            return
        fi
        sleep 0.1
    done
}

# Images.
step pull '$engine pull alpine'
step pull-quiet '$engine pull -q docker.io/library/busybox:latest'
step pull-missing '$engine pull -q localhost:5000/no/such:image'
step images '$engine images --sort repository'
step images-quiet '$engine images -q --sort repository'
step images-format '$engine images --sort repository --format "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}"'
step images-table '$engine images --sort repository --format "table {{.Repository}} {{.Tag}}"'
step images-filter '$engine images --filter reference=busybox --format "{{.Repository}}"'
step images-no-trunc '$engine images --no-trunc -q alpine'
step images-json '$engine images --format json alpine | python3 -c "import json, sys; print(json.load(sys.stdin)[0][\"Names\"])"'
step image-inspect '$engine image inspect --format "{{.Id}} {{.Os}}/{{.Architecture}} {{.Config.Cmd}} {{json .Config.Env}} {{index .RepoTags 0}}" alpine'
step image-inspect-layers '$engine image inspect -f "{{.RootFS.Type}}{{range .RootFS.Layers}} {{.}}{{end}}" alpine busybox'
step image-exists '$engine image exists alpine'
step image-exists-not '$engine image exists no-such-image'
step history '$engine history alpine'
step history-format '$engine history --format "{{.CreatedBy}}" --no-trunc alpine'
step tag '$engine tag alpine local/mine:1 local/mine:2'
step images-of-tag '$engine images --format "{{.Repository}}:{{.Tag}} {{.ID}}" --filter reference="local/mine:*" --sort tag'
step rmi-tag '$engine rmi local/mine:2'

# Running in the foreground.
step run '$engine run --rm alpine echo hello'
step run-exit-code '$engine run --rm alpine sh -c "echo out; echo err >&2; exit 7"'
step run-no-such-command '$engine run --rm alpine no-such-command'
step run-no-program '$engine run --rm alpine /etc/passwd'
step run-no-such-image '$engine run --rm --pull never no-such-image true'
step run-no-such-option '$engine run --no-such-option alpine true'
step run-signalled '$engine run --rm alpine sh -c "kill -9 \$\$"'
step run-env 'FROM_HERE=there $engine run --rm -e A=1 -e FROM_HERE -e NOT_THERE alpine sh -c "echo \$A \$FROM_HERE \${NOT_THERE-unset}"'
printf '# a comment\nC=three words here\n' >variables
step run-env-file '$engine run --rm --env-file variables alpine sh -c "echo \$C"'
mkdir site
echo 'It works.' >site/index.html
step run-volume '$engine run --rm -v "$PWD/site:/site" alpine sh -c "cat /site/index.html; echo new >/site/new"; cat site/new'
step run-volume-read-only '$engine run --rm -v "$PWD/site:/site:ro" alpine touch /site/other'
step run-volume-missing '$engine run --rm -v "$PWD/missing:/site" alpine true'
step run-named-volume '$engine run --rm -v data:/data alpine sh -c "echo kept >/data/file"; $engine run --rm -v data:/data alpine cat /data/file'
step run-mount '$engine run --rm --mount type=bind,src="$PWD/site",dst=/mnt,ro --tmpfs /scratch:size=1m alpine sh -c "ls /mnt; grep -c scratch /proc/mounts"'
step run-workdir '$engine run --rm -w /usr/bin alpine pwd'
step run-entrypoint '$engine run --rm --entrypoint /bin/echo alpine one two'
step run-entrypoint-json "\$engine run --rm --entrypoint '[\"sh\",\"-c\"]' alpine 'echo \$0' zero"
step run-user '$engine run --rm --user 1000:100 alpine id -u; $engine run --rm -u nobody alpine id'
step run-user-missing '$engine run --rm --user no-such-user alpine true'
step run-hostname '$engine run --rm --hostname box alpine hostname'
step run-hosts '$engine run --rm --add-host db:10.0.0.1 alpine grep -w db /etc/hosts'
step run-stdin 'echo from stdin | $engine run --rm -i alpine cat'
step run-no-stdin 'echo from stdin | $engine run --rm alpine cat'
mkfifo keys
step run-terminal 'script -qec "stty rows 20 cols 90; $engine run --rm -it alpine sh -c \"tty; until stty size 2>/dev/null; do :; done; exit 5\"" /dev/null <>keys'
step run-read-only '$engine run --rm --read-only alpine touch /file'
step run-capabilities '$engine run --rm --cap-drop all alpine grep CapEff /proc/self/status'
step run-init '$engine run --rm --init alpine sh -c "test \$\$ != 1"'
step run-ulimit '$engine run --rm --ulimit nofile=100:200 alpine sh -c "ulimit -n"'
step run-no-network '$engine run --rm --network none alpine ls /sys/class/net'
step run-cidfile '$engine run --rm --cidfile cid alpine true; cat cid'
step run-name '$engine run --name done --label app=done alpine sh -c "exit 3"'
step run-name-taken '$engine run --name done alpine true'

# A service.
step run-detached '$engine run -d --name web -p "$PORT:80" --label app=web --label tier=front -e GREETING=hi \
    --health-cmd "test ! -e /tmp/sick" --health-interval 1h --restart on-failure:3 --stop-timeout 5 \
    -v "$PWD/site:/site:ro" -w /tmp busybox \
    sh -c "echo two >&2; sleep 1; echo one; echo three; httpd -h /site; echo four; sleep 1d"'
await '$engine logs web 2>&1 | grep -q four'
step health '$engine healthcheck run web; $engine inspect --format "{{.State.Health.Status}}" web'
step request 'python3 -c "from urllib.request import urlopen; print(urlopen(\"http://127.0.0.1:$PORT/\").read())"'
step ps '$engine ps'
step ps-all '$engine ps -a --sort names --format "{{.Names}} {{.Image}} {{.State}}"'
step ps-quiet '$engine ps -q'
step ps-filter-name '$engine ps --filter name=we --format "{{.Names}}"'
step ps-filter-status '$engine ps -a --filter status=exited --format "{{.Names}}: {{.Status}}"'
step ps-filter-label '$engine ps -a --filter label=app=web --format "{{.Names}} {{.Labels}}"'
step ps-filter-exited '$engine ps -aq --filter exited=3'
step ps-table '$engine ps -a --sort names --format "table {{.Names}}\t{{.Ports}}\t{{.Command}}"'
step ps-no-trunc '$engine ps --no-trunc'
step ps-no-heading '$engine ps --noheading'
step ps-last '$engine ps -n 1 --format "{{.Names}}"'
step ps-json '$engine ps --format json | python3 -c "import json, sys; (it,) = json.load(sys.stdin); print(it[\"Names\"], it[\"State\"], it[\"Labels\"], it[\"ExitCode\"])"'
step exec '$engine exec web echo inside'
step exec-exit-code '$engine exec web sh -c "exit 9"'
step exec-env '$engine exec -e NEW=1 web sh -c "echo \$GREETING \$NEW"'
step exec-workdir '$engine exec web pwd; $engine exec -w / web pwd'
step exec-user '$engine exec -u 1000:100 web id -u'
step exec-stdin 'echo piped | $engine exec -i web cat'
step exec-terminal 'script -qec "$engine exec -it web tty" /dev/null <>keys'
step exec-detached '$engine exec -d web touch /tmp/made'
await '$engine exec web test -e /tmp/made'
step exec-no-such-command '$engine exec web no-such-command'
step exec-no-such-container '$engine exec no-such-container true'
step logs '$engine logs web'
step logs-tail '$engine logs --tail 2 web'
step logs-times '$engine logs -t --tail 1 web | grep -Ec "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9:]{5}) four$"'
step logs-since '$engine logs --since 10m web'
step logs-future '$engine logs --since 2100-01-01T00:00:00Z web'
step logs-names '$engine logs --names --tail 1 web'
step inspect-state '$engine inspect --format "{{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{.State.Paused}} {{.State.OOMKilled}}" web done'
step inspect-config '$engine inspect --format "{{.Config.Labels}} {{.Config.WorkingDir}} {{.Config.Image}} {{.Config.StopTimeout}}" web'
step inspect-env '$engine inspect --format "{{range .Config.Env}}{{println .}}{{end}}" web | sort'
step inspect-label '$engine inspect -f "{{index .Config.Labels \"tier\"}}" web'
step inspect-restart '$engine inspect --format "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}} {{.RestartCount}}" web'
step inspect-mounts '$engine inspect --format "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{end}}" web'
step inspect-ports '$engine inspect --format "{{json .NetworkSettings.Ports}} {{json .HostConfig.PortBindings}}" web'
step inspect-network '$engine inspect --format "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}" web'
step inspect-command '$engine inspect --format "{{.Path}} {{len .Args}} {{json .Config.Cmd}} {{json .Config.Entrypoint}}" done'
step inspect-names '$engine inspect --format "{{.Name}} {{.ImageName}} {{.Image}} {{.Id}}" web'
step inspect-json '$engine inspect web | python3 -c "import json, sys; (it,) = json.load(sys.stdin); print(it[\"Name\"], it[\"State\"][\"Status\"])"'
step inspect-missing '$engine inspect no-such-container'
step container-inspect '$engine container inspect --format "{{.Name}}" web'
step container-exists '$engine container exists web'
step container-exists-not '$engine container exists no-such-container'
step health-bad '$engine exec web touch /tmp/sick; $engine healthcheck run web'
step top '$engine top web user args | tail -n +2 | sort -u'
step stats '$engine stats --no-stream --format "{{.Name}} {{.ID}}" web'
step port '$engine port web; $engine port web 80/tcp'
step port-missing '$engine port web 81'
echo content >file
step cp-in '$engine cp file web:/tmp/copied; $engine exec web cat /tmp/copied'
step cp-out '$engine cp web:/tmp/copied back; cat back'
step cp-directory '$engine cp site web:/tmp/; $engine exec web ls /tmp/site'
step cp-to-stdout '$engine cp web:/tmp/copied - | tar -tf -'
step cp-from-stdin 'tar -cf - file | $engine cp - web:/var; $engine exec web cat /var/file'
step cp-missing '$engine cp web:/no/such/file back'
step diff '$engine diff web | grep -E "/tmp/(copied|site)$"'
step pause '$engine pause web; $engine ps --format "{{.Names}} {{.State}}"'
step exec-paused '$engine exec web true'
step unpause '$engine unpause web; $engine ps --format "{{.State}}"'
step rename '$engine rename web front; $engine ps --format "{{.Names}}"; $engine rename front web'

# Its end, and another one.
step exec-again '$engine exec web echo still there'
step stop '$engine stop -t 0 web'
step stop-again '$engine stop web'
step exec-stopped '$engine exec web true'
step worker '$engine run -d --name worker --network none alpine sh -c "trap \"exit 4\" TERM; echo ready; while :; do sleep 0.1; done"'
await '$engine logs worker | grep -q ready'
step stop-politely '$engine stop -t 30 worker; $engine inspect --format "{{.State.Status}} {{.State.ExitCode}}" worker'
step start '$engine start worker'
step start-again '$engine start worker'
await '$engine logs worker | grep -c ready | grep -q 2'
step restart '$engine restart -t 30 worker; $engine ps --filter name=worker --format "{{.Names}} {{.State}}"'
await '$engine logs worker | grep -c ready | grep -q 3'
step kill '$engine kill -s TERM worker'
step wait '$engine wait worker'
step kill-stopped '$engine kill worker'
step wait-missing '$engine wait no-such-container'
step start-attached '$engine start -a done'
step rm-missing '$engine rm no-such-container'
# The journal has it a moment later.
await '$engine events --stream=false --since "$started" --filter container=worker --filter event=died --format "{{.Name}}" | grep -c worker | grep -q 3'
step events '$engine events --stream=false --since "$started" --filter container=worker --filter event=died --format "{{.Type}} {{.Status}} {{.Name}}"'
step events-until '$engine events --since "$started" --until 0s --filter container=done --filter event=create --format "{{.Name}} {{.Image}}"'

# From containers to images and back.
step create '$engine create --name made alpine sh -c "echo made; cat /added"'
step created '$engine ps -a --filter status=created --format "{{.Names}} {{.Status}}"'
step cp-created '$engine cp file made:/added; $engine diff made'
step start-created '$engine start -a made'
step commit '$engine commit -q --change "CMD [\"cat\", \"/added\"]" --change "ENV KEY=value" made local/committed'
step committed '$engine run --rm local/committed'
step committed-config '$engine image inspect --format "{{.Config.Cmd}} {{len .RootFS.Layers}}{{range .Config.Env}}\n{{.}}{{end}}" local/committed | sort'
step save 'rm -f saved.tar; $engine save -q -o saved.tar local/committed; tar -tf saved.tar | grep -c manifest.json'
step load '$engine rmi -f local/committed >/dev/null; $engine load -q -i saved.tar'
step save-load '$engine save local/committed | $engine load'
step loaded '$engine run --rm local/committed'
step export '$engine export made | tar -tf - added etc/alpine-release'
step import '$engine export made | $engine import --change "CMD cat /added" - local/imported'
step imported '$engine run --rm local/imported'
step rmi-used '$engine rmi busybox'
step rmi-several '$engine rmi local/imported local/committed'
step rmi-missing '$engine rmi no-such-image'

# The machine, and cleaning up.
step system-df '$engine system df --format "{{.Type}} {{.Total}} {{.Active}}"'
step version '$engine version --format "{{.Client.Version}}" | grep -Ec "^[0-9]+[.][0-9]"'
step version-of-server '$engine version -f "{{.Server.Os}}"'
step info '$engine info --format "{{.Host.Security.Rootless}} {{.Host.CgroupsVersion}} {{.Host.OS}} {{.Store.ContainerStore.Number}}"'
step run-background '$engine run -d --name first alpine sleep 100; $engine run -d --name second alpine sleep 100'
step rm-running '$engine rm first'
step rm-time-alone '$engine rm -t 0 first'
step rm-force '$engine rm -f -t 0 first'
step stop-all '$engine stop -t 0 -a'
step rm '$engine rm second'
step prune '$engine container prune -f | wc -l'
step ps-nothing '$engine ps -aq'
step image-prune '$engine image prune -f'
step rmi-all '$engine rmi -a -f | grep -c .; $engine images -q'

cd / && rm -rf "$directory"
