//! What the guide says that each call reports is what it reports.

use crate::worlds::{Site, ThreadUreq, data_of, site};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tinkex_telemetry::client::{
    AdamParams, Datum, LoraConfig, LossFn, ModelInput, SampleRequest, SamplingParams,
    TrainingClient,
};

/// A row of the guide: the requests, and how many changes of the queue there are.
type Row = (Vec<String>, u64);

type ByService = fn(&Site<ThreadUreq>);
type ByTraining<'a> = &'a dyn Fn(&Site<ThreadUreq>, &TrainingClient);

fn rows() -> BTreeMap<(String, String), Row> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../features/client/guide.md"
    );
    let guide = std::fs::read_to_string(path).expect("a guide");
    let rows = guide
        .lines()
        .skip_while(|line| !line.starts_with("| client | call |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [client, call, requests, changes] = cells[..] else {
            panic!("{row}")
        };
        let requests = requests.split('`').skip(1).step_by(2);
        let requests = requests.map(str::to_owned).collect();
        let key = (client.replace('`', ""), call.replace('`', ""));
        (key, (requests, changes.parse().expect("a number")))
    })
    .collect()
}

/// What a call reports in a session of its own, beyond what had to come before it.
struct Look {
    site: Site<ThreadUreq>,
}

impl Look {
    fn new() -> Self {
        Self { site: site() }
    }

    fn counts(&self) -> (usize, usize) {
        let telemetry = self.site.service.telemetry().unwrap();
        let drain = telemetry.wait_until_drained_blocking(Duration::from_secs(600));
        assert!(drain.unwrap().is_drained());
        let id = self.site.service.session_id();
        let session = self.site.collector.session(id).unwrap();
        let starts = data_of(&session, "tinkex.http.request.start").len();
        (starts, data_of(&session, "tinkex.queue.state_change").len())
    }

    /// The requests since then, each of which has its end, and the changes of the queue.
    fn row(&self, before: (usize, usize)) -> Row {
        let session = self.site.close();
        let changes = data_of(&session, "tinkex.queue.state_change").len() - before.1;
        let path = |event: &Value| {
            let path = event["metadata"]["path"].as_str().unwrap();
            path.rsplit('/').next().unwrap().to_owned()
        };
        // Whether a heart beats meanwhile is a matter of time.
        let is_asked = |name: &String| name != "session_heartbeat";
        let starts = data_of(&session, "tinkex.http.request.start");
        let stops = data_of(&session, "tinkex.http.request.stop");
        let count = |events: &[Value]| events.iter().map(path).filter(is_asked).count();
        assert_eq!(count(&starts), count(&stops));
        let names = starts[before.0..].iter().map(path).filter(is_asked);
        (names.collect(), changes as u64)
    }
}

#[test]
fn each_call_reports_what_the_guide_says() {
    let mut rows = rows();
    let prompt = || ModelInput::from_tokens([1]);
    let datum = || [Datum::new(prompt())];
    let params = SamplingParams::new;
    let finish = "finish".to_owned();
    let mut check = |client: &str, call: &str, (mut requests, changes): Row| {
        if call != "close" {
            assert_eq!(requests.pop(), Some(finish.clone()), "the close");
        }
        let told = rows.remove(&(client.to_owned(), call.to_owned()));
        assert_eq!(Some((requests, changes)), told, "{client}::{call}");
    };

    let service: [(&str, ByService); 5] = [
        ("connect", |_| {}),
        ("close", |_| {}),
        ("get_server_capabilities", |site| {
            site.wait(site.service.get_server_capabilities()).unwrap();
        }),
        ("create_sampling_client", |site| {
            site.sampler();
        }),
        ("create_training_client", |site| {
            site.trainer();
        }),
    ];
    for (call, make) in service {
        let look = Look::new();
        make(&look.site);
        check("ServiceClient", call, look.row((0, 0)));
    }

    for call in ["sample", "sample_with", "compute_logprobs"] {
        let look = Look::new();
        let sampler = look.site.sampler();
        let before = look.counts();
        match call {
            "sample" => drop(
                look.site
                    .wait(sampler.sample(prompt(), 1, params()))
                    .unwrap(),
            ),
            "sample_with" => {
                let request = SampleRequest::new(prompt());
                drop(look.site.wait(sampler.sample_with(request)).unwrap());
            }
            _ => drop(look.site.wait(sampler.compute_logprobs(prompt())).unwrap()),
        }
        check("SamplingClient", call, look.row(before));
    }

    let training: [(&str, ByTraining<'_>); 9] = [
        ("get_info", &|site, client| {
            site.wait(client.get_info()).unwrap();
        }),
        ("forward", &|site, client| {
            let call = client.forward(datum(), LossFn::CrossEntropy);
            site.wait(call).unwrap();
        }),
        ("forward_backward", &|site, client| {
            let call = client.forward_backward(datum(), LossFn::CrossEntropy);
            site.wait(call).unwrap();
        }),
        ("optim_step", &|site, client| {
            site.wait(client.optim_step(AdamParams::default())).unwrap();
        }),
        ("save_weights", &|site, client| {
            site.wait(client.save_weights("a")).unwrap();
        }),
        ("save_weights_for_sampler", &|site, client| {
            site.wait(client.save_weights_for_sampler("a")).unwrap();
        }),
        ("create_sampling_client", &|site, client| {
            site.wait(client.create_sampling_client()).unwrap();
        }),
        ("load_weights", &|site, client| {
            site.wait(client.load_weights("tinker://a")).unwrap();
        }),
        ("load_weights_with_optimizer", &|site, client| {
            site.wait(client.load_weights_with_optimizer("tinker://a"))
                .unwrap();
        }),
    ];
    for (call, make) in training {
        let look = Look::new();
        let service = &look.site.service;
        let client = service.create_training_client("small", LoraConfig::default());
        let client = look.site.wait(client).unwrap();
        let before = look.counts();
        make(&look.site, &client);
        check("TrainingClient", call, look.row(before));
    }

    // The heart, which is left, is looked at where time is simulated.
    let left: Vec<_> = rows.into_keys().map(|(_, call)| call).collect();
    assert_eq!(left, ["every ten seconds"]);
}
