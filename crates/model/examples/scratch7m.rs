#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::print_stdout, unused)]
use std::time::Instant;
fn main() {
    kernels::configure_allocator();
    let dev = kernels::device("cpu").unwrap().autodiff();
    let json = serde_json::json!({"model_type":"llama","hidden_size":256,"num_hidden_layers":6,"num_attention_heads":8,"num_key_value_heads":8,"intermediate_size":768,"vocab_size":4096,"tie_word_embeddings":false,"max_position_embeddings":4096,"rms_norm_eps":1e-6,"rope_theta":10000.0,"hidden_act":"silu"});
    let config = arch::ModelConfig::from_json(&json, std::path::Path::new("x")).unwrap();
    let model = model::CausalLm::init(&config, 1, &dev);
    let (b, t) = (8, 256);
    for i in 0..8 {
        let ids: Vec<u32> = (0..b * t).map(|x| ((x * 7919 + i * 13) % 4096) as u32).collect();
        let t0 = Instant::now();
        let tokens = nn::TokenBatch::of_rows(&ids, b, &dev);
        let hidden = model.backbone.forward(&tokens).reshape([(b * t) as i32, 256]);
        let t1 = t0.elapsed();
        let targets = burn::tensor::Tensor::<1, burn::tensor::Int>::from_data(ids.iter().map(|&x| x as i32).collect::<Vec<_>>().as_slice(), &dev);
        let l = kernels::linear_cross_entropy(hidden, model.head_weight(), targets);
        let t2 = t0.elapsed();
        let g = l.backward();
        let t3 = t0.elapsed();
        println!("fwd {:.3} ce {:.3} bwd {:.3} -> {:.0} tok/s", t1.as_secs_f64(), (t2 - t1).as_secs_f64(), (t3 - t2).as_secs_f64(), (b * t) as f64 / t3.as_secs_f64());
    }
}
