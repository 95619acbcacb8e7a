use image_losses_core::Error;
use image_losses_gan::{ImagePool, Sample};
use image_losses_laws::drawn;
use proptest::prelude::*;

use crate::tools::variant;

proptest! {
    #![proptest_config(drawn(64))]

    #[test]
    fn drawn_a_pool_holds_the_last_values(size in 0usize..8, batches in prop::collection::vec(0usize..6, 0..6)) {
        let mut pool = ImagePool::new(size, 1);
        let mut all = Vec::new();
        for batch in batches {
            let start = all.len();
            all.extend(start..start + batch);
            pool.add(start..start + batch);
            let last: Vec<usize> = all[all.len().saturating_sub(size)..].to_vec();
            prop_assert_eq!(pool.iter().copied().collect::<Vec<_>>(), last.clone());
            prop_assert_eq!(pool.query().into_iter().copied().collect::<Vec<_>>(), last);
            prop_assert_eq!((pool.len(), pool.is_empty()), (all.len().min(size), all.is_empty() || size == 0));
        }
    }

    #[test]
    fn drawn_a_sample_has_no_repetitions_and_follows_the_seed(seed: u64, size in 2usize..9, sample in 1usize..9) {
        let filled = || {
            let mut pool = ImagePool::new(size, seed).with_sample_size(sample).unwrap();
            pool.add(0..size);
            pool
        };
        let (mut a, mut b) = (filled(), filled());
        for _ in 0..3 {
            let drawn: Vec<usize> = a.query().into_iter().copied().collect();
            prop_assert_eq!(&drawn, &b.query().into_iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(drawn.len(), sample.min(size));
            let mut sorted = drawn;
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(sorted.len(), sample.min(size));
        }
    }
}

#[test]
fn every_value_is_drawn_as_often() {
    // 6,000 draws of 2 of 6: each is expected 2,000 times, deviation √(6000·⅓·⅔) = 37.
    let mut pool = ImagePool::new(6, 3).with_sample_size(2).unwrap();
    pool.add(0..6);
    let mut counts = [0; 6];
    for _ in 0..6000 {
        for &drawn in pool.query() {
            counts[drawn] += 1;
        }
    }
    assert!(counts.iter().all(|count| (1800..2200).contains(count)), "{counts:?}");
}

#[test]
fn a_loaded_pool_goes_on_where_the_saved_one_stood() {
    let mut pool = ImagePool::new(5, 9).with_sample_size(2).unwrap();
    pool.add(Sample::split(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]).unwrap());
    pool.query();
    let text = serde_json::to_string(&pool).unwrap();
    let mut loaded: ImagePool<Sample> = serde_json::from_str(&text).unwrap();
    assert_eq!(loaded, pool);
    for _ in 0..4 {
        assert_eq!(loaded.query(), pool.query());
    }
    // A full one, and one that holds nothing.
    pool.add(Sample::split(&[7.0, 8.0, 9.0], &[3]).unwrap());
    for pool in [pool, ImagePool::new(0, 1).with_sample_size(0).unwrap()] {
        assert_eq!(pool.len(), pool.pool_size());
        let text = serde_json::to_string(&pool).unwrap();
        assert_eq!(serde_json::from_str::<ImagePool<Sample>>(&text).unwrap(), pool);
    }
}

#[test]
fn a_file_that_is_no_pool_is_refused() {
    let mut pool = ImagePool::new(2, 0);
    pool.add([1, 2]);
    let good = serde_json::to_string(&pool).unwrap();
    let wrong = [
        good.replace("\"pool_size\":2", "\"pool_size\":1"),
        good.replace("\"sample_size\":2", "\"sample_size\":0"),
        good.replace("\"items\"", "\"values\""),
    ];
    for wrong in wrong {
        assert_ne!(wrong, good);
        assert!(serde_json::from_str::<ImagePool<i32>>(&wrong).is_err(), "{wrong}");
    }
    assert!(matches!(ImagePool::<i32>::new(2, 0).with_sample_size(0), Err(Error::InvalidOption { .. })));
}

#[test]
fn samples_split_a_batch() {
    let samples = Sample::split(&[1.0f32, 2.0, 3.0, 4.0], &[2, 1, 2]).unwrap();
    assert_eq!(samples[1].values(), [3.0, 4.0]);
    assert_eq!(samples[1].shape(), [1, 1, 2]);
    assert_eq!(variant(Sample::split(&[1.0], &[2])), "Length");
    assert_eq!(variant(Sample::split(&[1.0], &[])), "ShapeRule");
    assert_eq!(variant(Sample::split::<f64>(&[], &[0, 2])), "Empty");
    assert_eq!(variant(Sample::new(vec![1.0], &[usize::MAX, 2])), "Length");
    // What is not finite is not stored.
    let kept = Sample::split(&[1.0, f64::NAN, 3.0, 4.0, f64::INFINITY, 6.0], &[3, 2]).unwrap();
    assert_eq!(kept, [Sample::new(vec![3.0, 4.0], &[1, 2]).unwrap()]);
    assert_eq!(Sample::split(&[f32::NAN], &[1]).unwrap(), []);
    assert_eq!(variant(Sample::new(vec![f64::NAN], &[1])), "InvalidOption");
    assert!(serde_json::from_str::<Sample>(r#"{"values": [1.0], "shape": [2]}"#).is_err());
}
