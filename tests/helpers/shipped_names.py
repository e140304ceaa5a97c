"""Names of shipped recipes that several tests train."""

SIX = (
    "causal_last_token_native_dim",
    "llm2vec_bidirectional_mean",
    "nv_embed_bidirectional_latent_cross_attention",
    "causal2vec_contextual_token",
    "multi_layer_trainable_pooling_bidirectional",
    "echo_delta_causal",
)
