#!/bin/bash
# Two hosts on this machine: namespaces of network, processes, host name and mounts, joined by one cable; what they say leaves neither.
#     machines.sh FOLDER up | slurm | on NODE COMMAND... | down
# `slurm` starts a cluster of both (slurmctld on node0). FOLDER holds keys, logs and the numbers of the processes.
set -euo pipefail
here=$1 what=$2
net=10.77.0
inside() { nsenter -t "$(cat "$here/init.$1")" -m -u -n -p --wd="$PWD" -- "${@:2}"; }
case $what in
up)
    mkdir -p "$here/ssh" /run/sshd /root/.ssh
    chmod 700 "$here/ssh"
    ssh-keygen -q -t ed25519 -N '' -f "$here/ssh/id_ed25519"
    cp "$here/ssh/id_ed25519.pub" "$here/ssh/authorized_keys"
    ssh-keygen -q -t ed25519 -N '' -f "$here/hostkey"
    printf 'Host node0 node1\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n  Port 2222\n' > "$here/ssh/config"
    printf '  ServerAliveInterval 5\n  ServerAliveCountMax 3\n' >> "$here/ssh/config"
    printf '127.0.0.1 localhost\n%s.1 node0\n%s.2 node1\n' $net $net > "$here/hosts"
    ip link add dpt0 type veth peer name dpt1
    for i in 0 1; do
        ip netns add "dpt$i"
        ip link set "dpt$i" netns "dpt$i"
        ip -n "dpt$i" link set "dpt$i" name eth0
        ip -n "dpt$i" addr add "$net.$((i + 1))/24" dev eth0
        ip -n "dpt$i" link set eth0 up
        ip -n "dpt$i" link set lo up
        printf '%s\n' "Port 2222" "ListenAddress $net.$((i + 1))" "HostKey $here/hostkey" "StrictModes no" "UsePAM no" \
            "AuthorizedKeysFile $here/ssh/authorized_keys" "PasswordAuthentication no" "PidFile none" > "$here/sshd.$i"
        ip netns exec "dpt$i" unshare --pid --fork --kill-child --mount-proc --uts --mount bash -c "
            hostname node$i; mount --bind '$here/ssh' /root/.ssh; mount --bind '$here/hosts' /etc/hosts
            exec /usr/sbin/sshd -D -f '$here/sshd.$i' -E '$here/sshd.$i.log'" < /dev/null > /dev/null 2>&1 &
        echo $! > "$here/unshare.$i"
    done
    for i in 0 1; do
        until pgrep -P "$(cat "$here/unshare.$i")" > "$here/init.$i"; do sleep 0.1; done
    done
    for _ in $(seq 100); do inside 0 ssh node1 true 2> /dev/null && inside 0 ssh node0 true && exit; sleep 0.1; done
    echo "node0 cannot reach node1" && exit 1
    ;;
slurm)
    mkdir -p "$here/slurm/state" "$here/slurm/spool/node0" "$here/slurm/spool/node1"
    chmod 755 "$here" "$here/slurm"
    install -d -o munge -g munge -m 0755 /run/munge "$here/munge"
    cat > "$here/slurm/slurm.conf" << CONF
ClusterName=dpt
SlurmctldHost=node0($net.1)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$here/slurm/state
SlurmdSpoolDir=$here/slurm/spool/%n
SlurmctldPidFile=$here/slurm/slurmctld.pid
SlurmdPidFile=$here/slurm/slurmd.%n.pid
SlurmctldLogFile=$here/slurm/slurmctld.log
SlurmdLogFile=$here/slurm/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,requeue_delay=1
KillWait=5
NodeName=node0 NodeAddr=$net.1 CPUs=2 State=UNKNOWN
NodeName=node1 NodeAddr=$net.2 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    printf 'CgroupPlugin=cgroup/v1\n' > "$here/slurm/cgroup.conf"
    export SLURM_CONF="$here/slurm/slurm.conf"
    inside 0 runuser -u munge -- munged --force --pid-file="$here/munge/munged.pid" --log-file="$here/munge/munged.log" \
        --seed-file="$here/munge/seed"
    inside 0 slurmctld -f "$SLURM_CONF"
    for i in 0 1; do inside $i slurmd -f "$SLURM_CONF"; done
    for _ in $(seq 100); do [ "$(inside 0 sinfo -h -t idle -o %D 2> /dev/null)" = 2 ] && exit; sleep 0.2; done
    echo "the nodes do not become idle" && exit 1
    ;;
on) inside "${@:3}" ;;
down)
    for i in 0 1; do
        [ -s "$here/init.$i" ] && kill -9 "$(cat "$here/init.$i")" || true
        ip netns del "dpt$i" || true
    done
    ;;
esac
