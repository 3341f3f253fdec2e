//! Compares what each call reports with the table in the guide.

use crate::runtimes::{Site, ThreadUreq, data_of, site};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tinkex_telemetry::client::{
    AdamParams, Datum, LoraConfig, LossFn, ModelInput, SampleRequest, SamplingParams,
    TrainingClient,
};

/// A row of the guide: the requests, and the number of queue state changes.
type Row = (Vec<String>, u64);

type ByService = fn(&Site<ThreadUreq>);
type ByTraining<'a> = &'a dyn Fn(&Site<ThreadUreq>, &TrainingClient);

fn rows() -> BTreeMap<(String, String), Row> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../features/client/guide.md"
    );
    let guide = std::fs::read_to_string(path).expect("the guide");
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

/// What a call reports in a new session, without the calls that had to precede it.
struct CallReport {
    site: Site<ThreadUreq>,
}

impl CallReport {
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

    /// The requests since `before`, each of which must have an end, and the queue state changes.
    fn row(&self, before: (usize, usize)) -> Row {
        let session = self.site.close();
        let changes = data_of(&session, "tinkex.queue.state_change").len() - before.1;
        let path = |event: &Value| {
            let path = event["metadata"]["path"].as_str().unwrap();
            path.rsplit('/').next().unwrap().to_owned()
        };
        // Whether a heartbeat falls into the call depends on timing.
        let is_caused_by_call = |name: &String| name != "session_heartbeat";
        let starts = data_of(&session, "tinkex.http.request.start");
        let stops = data_of(&session, "tinkex.http.request.stop");
        let count = |events: &[Value]| events.iter().map(path).filter(is_caused_by_call).count();
        assert_eq!(count(&starts), count(&stops));
        let numbers = |events: &[Value]| -> BTreeSet<u64> {
            let numbers = events.iter().map(|event| &event["metadata"]["call"]);
            numbers.map(|call| call.as_u64().unwrap()).collect()
        };
        assert_eq!(numbers(&starts).len(), starts.len());
        assert!(numbers(&stops).is_subset(&numbers(&starts)));
        let names = starts[before.0..]
            .iter()
            .map(path)
            .filter(is_caused_by_call);
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
        let documented = rows.remove(&(client.to_owned(), call.to_owned()));
        assert_eq!(Some((requests, changes)), documented, "{client}::{call}");
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
        let report = CallReport::new();
        make(&report.site);
        check("ServiceClient", call, report.row((0, 0)));
    }

    for call in ["sample", "sample_with", "compute_logprobs"] {
        let report = CallReport::new();
        let sampler = report.site.sampler();
        let before = report.counts();
        match call {
            "sample" => drop(
                report
                    .site
                    .wait(sampler.sample(prompt(), 1, params()))
                    .unwrap(),
            ),
            "sample_with" => {
                let request = SampleRequest::new(prompt());
                drop(report.site.wait(sampler.sample_with(request)).unwrap());
            }
            _ => drop(
                report
                    .site
                    .wait(sampler.compute_logprobs(prompt()))
                    .unwrap(),
            ),
        }
        check("SamplingClient", call, report.row(before));
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
        let report = CallReport::new();
        let service = &report.site.service;
        let client = service.create_training_client("small", LoraConfig::default());
        let client = report.site.wait(client).unwrap();
        let before = report.counts();
        make(&report.site, &client);
        check("TrainingClient", call, report.row(before));
    }

    // Only the heartbeat is left; the tests in simulated time cover it.
    let left: Vec<_> = rows.into_keys().map(|(_, call)| call).collect();
    assert_eq!(left, ["every ten seconds"]);
}
