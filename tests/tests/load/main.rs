//! What takes a machine's whole attention: crowds, ceilings, abuse, overload, full disks, kills, backlogs. Apart from `ways`, so that
//! nothing there has to share the processors with it.

mod abuse;
mod backlog;
mod bodies;
mod ceiling;
mod crowd;
mod disk;
mod kills;
mod overload;
mod scale;
mod watchers;
