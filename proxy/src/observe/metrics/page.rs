//! The families of a scrape as they are put together: names, labels, samples.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::cells::{BOUNDS, HistogramSum};
use super::families::Family;

/// The families of one scrape.
#[derive(Default)]
pub(super) struct Page {
    families: Vec<MetricFamily>,
}

impl Page {
    /// In the order in which they were put there.
    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.families
    }

    pub(super) fn family(&mut self, family: &Family, fill: impl FnOnce(&mut Samples<'_>)) {
        let mut samples = Samples {
            family,
            metrics: Vec::new(),
        };
        fill(&mut samples);
        if samples.metrics.is_empty() {
            return;
        }
        let mut made = MetricFamily::default();
        made.set_name(family.name.to_owned());
        made.set_help(family.help.to_owned());
        made.set_field_type(family.kind);
        made.set_metric(samples.metrics);
        self.families.push(made);
    }

    pub(super) fn single(&mut self, family: &Family, value: f64) {
        self.family(family, |samples| samples.value(&[], value));
    }
}

/// The samples of one family.
pub(super) struct Samples<'f> {
    family: &'f Family,
    metrics: Vec<Metric>,
}

impl Samples<'_> {
    /// One counter or gauge; `labels` in the order of the family's.
    pub(super) fn value(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.labelled(labels);
        if self.family.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    pub(super) fn histogram(&mut self, labels: &[&str], sum: &HistogramSum) {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        for (bound, observed) in BOUNDS.into_iter().zip(sum.buckets) {
            count += observed;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(sum.buckets.iter().sum());
        histogram.set_sample_sum(sum.seconds);
        let mut metric = self.labelled(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    fn labelled(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(values.len(), self.family.labels.len());
        let pairs = self.family.labels.iter().zip(values);
        let pairs = pairs.map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        Metric::from_label(pairs.collect())
    }
}
