//! A cluster elects another leader when its own dies, and takes it back.

use super::*;
use crate::Lab;

#[test]
fn a_cluster_goes_on_without_its_leader_and_takes_it_back() {
    let lab = Lab::new("cluster").unwrap();
    let hosts = ["etcd-1", "etcd-2", "etcd-3"].map(|name| lab.host(name).unwrap());
    let etcd = Etcd::start(&hosts, lab.directory()).unwrap();
    let leader = etcd.leader().unwrap();
    assert_ne!(etcd.follower().unwrap().host().name(), leader.host().name());
    leader.kill().unwrap();
    assert_ne!(etcd.leader().unwrap().host().name(), leader.host().name());
    leader.restart().unwrap();
    etcd.wait_healthy().unwrap();
}
