#!/bin/bash
# Simulate two hosts on this machine. Each host has separate namespaces for network, processes, host name and mounts.
# A virtual cable connects the hosts; they have no other network.
#
#     machines.sh FOLDER up               start node0 and node1
#     machines.sh FOLDER slurm            start a Slurm cluster of both hosts (slurmctld on node0)
#     machines.sh FOLDER on NODE COMMAND  run a command on a host
#     machines.sh FOLDER down             stop the hosts
#
# FOLDER contains keys, logs and process ids.
set -euo pipefail
folder=$1 action=$2
net=10.77.0
inside() { nsenter -t "$(cat "$folder/init.$1")" -m -u -n -p --wd="$PWD" -- "${@:2}"; }
case $action in
up)
    mkdir -p "$folder/ssh" /run/sshd /root/.ssh
    chmod 700 "$folder/ssh"
    ssh-keygen -q -t ed25519 -N '' -f "$folder/ssh/id_ed25519"
    cp "$folder/ssh/id_ed25519.pub" "$folder/ssh/authorized_keys"
    ssh-keygen -q -t ed25519 -N '' -f "$folder/hostkey"
    printf 'Host node0 node1\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n  Port 2222\n' > "$folder/ssh/config"
    printf '  ServerAliveInterval 5\n  ServerAliveCountMax 3\n' >> "$folder/ssh/config"
    printf '127.0.0.1 localhost\n%s.1 node0\n%s.2 node1\n' $net $net > "$folder/hosts"
    ip link add dpt0 type veth peer name dpt1
    for i in 0 1; do
        ip netns add "dpt$i"
        ip link set "dpt$i" netns "dpt$i"
        ip -n "dpt$i" link set "dpt$i" name eth0
        ip -n "dpt$i" addr add "$net.$((i + 1))/24" dev eth0
        ip -n "dpt$i" link set eth0 up
        ip -n "dpt$i" link set lo up
        printf '%s\n' "Port 2222" "ListenAddress $net.$((i + 1))" "HostKey $folder/hostkey" "StrictModes no" "UsePAM no" \
            "AuthorizedKeysFile $folder/ssh/authorized_keys" "PasswordAuthentication no" "PidFile none" > "$folder/sshd.$i"
        ip netns exec "dpt$i" unshare --pid --fork --kill-child --mount-proc --uts --mount bash -c "
            hostname node$i; mount --bind '$folder/ssh' /root/.ssh; mount --bind '$folder/hosts' /etc/hosts
            exec /usr/sbin/sshd -D -f '$folder/sshd.$i' -E '$folder/sshd.$i.log'" < /dev/null > /dev/null 2>&1 &
        echo $! > "$folder/unshare.$i"
    done
    for i in 0 1; do
        until pgrep -P "$(cat "$folder/unshare.$i")" > "$folder/init.$i"; do sleep 0.1; done
    done
    for _ in $(seq 100); do inside 0 ssh node1 true 2> /dev/null && inside 0 ssh node0 true && exit; sleep 0.1; done
    echo "node0 cannot reach node1" && exit 1
    ;;
slurm)
    mkdir -p "$folder/slurm/state" "$folder/slurm/spool/node0" "$folder/slurm/spool/node1"
    chmod 755 "$folder" "$folder/slurm"
    install -d -o munge -g munge -m 0755 /run/munge "$folder/munge"
    cat > "$folder/slurm/slurm.conf" << CONF
ClusterName=dpt
SlurmctldHost=node0($net.1)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$folder/slurm/state
SlurmdSpoolDir=$folder/slurm/spool/%n
SlurmctldPidFile=$folder/slurm/slurmctld.pid
SlurmdPidFile=$folder/slurm/slurmd.%n.pid
SlurmctldLogFile=$folder/slurm/slurmctld.log
SlurmdLogFile=$folder/slurm/slurmd.%n.log
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
    printf 'CgroupPlugin=cgroup/v1\n' > "$folder/slurm/cgroup.conf"
    export SLURM_CONF="$folder/slurm/slurm.conf"
    inside 0 runuser -u munge -- munged --force --pid-file="$folder/munge/munged.pid" --log-file="$folder/munge/munged.log" \
        --seed-file="$folder/munge/seed"
    inside 0 slurmctld -f "$SLURM_CONF"
    for i in 0 1; do inside $i slurmd -f "$SLURM_CONF"; done
    for _ in $(seq 100); do [ "$(inside 0 sinfo -h -t idle -o %D 2> /dev/null)" = 2 ] && exit; sleep 0.2; done
    echo "the nodes do not become idle" && exit 1
    ;;
on) inside "${@:3}" ;;
down)
    for i in 0 1; do
        [ -s "$folder/init.$i" ] && kill -9 "$(cat "$folder/init.$i")" || true
        ip netns del "dpt$i" || true
    done
    ;;
esac
