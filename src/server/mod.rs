//! Listeners, workers, shutdown.

pub mod worker;

use crate::config::{ListenAddress, Settings};
use crate::upstream::connections::ConnectionFile;
use crate::upstream::known::Known;
use crate::upstream::settings::Timeouts;
use crate::upstream::shared::{Mode, Shared, Target};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use worker::{NewClient, Part, Socket};

/// Serves until told to stop.
pub fn run(settings: &Settings) -> ExitCode {
    std::fs::create_dir_all(&settings.data_dir).unwrap();
    let u = &settings.upstreams[0];
    let target = Target {
        name: u.name.clone(),
        address: u.url.address.clone(),
        db: u.url.db,
        credentials: u.url.credentials.clone(),
        timeouts: Timeouts {
            connect: u.timeouts.connect,
            command: u.timeouts.command,
        },
        hold_timeout: u.hold_timeout,
    };
    let (shared, _signs) = Shared::new(
        target,
        ConnectionFile::open(&settings.data_dir.join("connections")).unwrap(),
        Known::open(&settings.data_dir.join("known"), [0; 16]).unwrap(),
        Arc::new(AtomicU64::new(2)),
        1,
    );
    shared.set_mode(Mode::Healthy);
    let l = &settings.limits;
    let session = crate::session::Settings {
        limits: crate::session::Limits {
            request: crate::resp::scan::Limits {
                args_max: l.args_max as u32,
                bulk_bytes_max: l.bulk_bytes_max as u64,
                inline_bytes_max: l.inline_bytes_max,
            },
            lane_request_bytes_max: l.lane_request_bytes_max,
            pipeline_max: l.pipeline_max,
            reply_buffer_bytes_max: l.reply_buffer_bytes_max,
        },
        client_password: None,
    };
    let w = worker::start(
        0,
        vec![Part {
            shared,
            session,
            confirm: Box::new(|_| {}),
        }],
    )
    .unwrap();
    let ListenAddress::Tcp { host, port } = &u.listen else {
        return ExitCode::FAILURE;
    };
    let lis = std::net::TcpListener::bind((host.as_str(), *port)).unwrap();
    let mut id = 1;
    for s in lis.incoming() {
        let s = s.unwrap();
        s.set_nonblocking(true).unwrap();
        id += 1;
        w.clients
            .blocking_send(NewClient {
                upstream: 0,
                id,
                socket: Socket::Tcp(s),
            })
            .unwrap();
    }
    ExitCode::SUCCESS
}
