"""What the doctor says, in English: id -> (verdict, why, fix)."""

from __future__ import annotations

BEFORE = {
    "B1.fertility": (
        "One token stands for only {bytes_per_token:.2f} bytes of this text; with {vocab_size:,} tokens a tokenizer"
        " made for it reaches about {expected:.1f}.",
        "The tokenizer was made for another language or another kind of text: sequences become longer, the model"
        " spells instead of reading, and the same time teaches less.",
        "Train a tokenizer on this text (`quinze tokenizer train`), or take the one that belongs to the base model.",
    ),
    "B1.foreign-rows": (
        "In {share:.0%} of the rows a token stands for {bytes_per_token:.2f} bytes or less, against {mean:.2f} on"
        " average.",
        "Those rows are in another language, or are not text (numbers, base64, broken encodings).",
        "Look at them in the preview; drop them, or train the tokenizer on them too.",
    ),
    "B1.unknown": (
        "{share:.1%} of all tokens are the unknown token.",
        "What the tokenizer cannot spell is lost: the model can neither read nor write it.",
        "Take a byte-level tokenizer (the default of `quinze tokenizer train`).",
    ),
    "B1.unused-vocabulary": (
        "{unused:.0%} of the {vocab_size:,} tokens of the vocabulary never occur in the {tokens:,} tokens looked at.",
        "Their rows of the embedding take memory and time in the output layer and learn nothing.",
        "Train a smaller vocabulary on this text, unless the tokenizer must be that of a base model.",
    ),
    "B2.floors": (
        "To beat, in nats a token: blind guessing {uniform:.2f}, frequencies {unigram:.2f}, pairs {bigram:.2f},"
        " triples {trigram:.2f}.",
        "A loss means something only beside what a simple table reaches on the same text.",
        "",
    ),
    "B2.no-order": (
        "Knowing the token before lowers the loss by only {gain:.3f} nats of {unigram:.2f} ({share:.1%}): the tokens"
        " of this text stand in random order.",
        "There is nothing to learn but frequencies; any model will end near {unigram:.2f} nats.",
        "Look at the rows in the preview: the data was probably shuffled token by token, or decoded wrongly.",
    ),
    "B2.no-word-order": (
        "Knowing the word before lowers the loss on the next word by only {gain:.3f} nats of {unigram:.2f}"
        " ({share:.1%}): the words of this text stand in random order.",
        "A model can learn to spell from it, but no sentence.",
        "Look at the rows in the preview: the words were probably shuffled when the text was prepared.",
    ),
    "B3.duplicates": (
        "About {share:.0%} of the training text occurs more than once (passages of {length} tokens).",
        "The model learns repeated passages by heart, and the loss looks better than the model is.",
        "Prepare the data anew with duplicates removed.",
    ),
    "B3.leak": (
        "About {share:.0%} of the validation text also stands in the training text (passages of {length} tokens).",
        "The validation loss then measures memory, not understanding: it will look too good.",
        "Prepare the data anew: remove duplicates before splitting, and split by document.",
    ),
    "B3.same-batch": (
        "Steps {first} and {second} learn from exactly the same rows.",
        "The model would learn one batch by heart and nothing else.",
        "Batches must depend on the step; with your own `batches`, use its argument.",
    ),
    "B3.same-order": (
        "Epoch {epoch} visits the rows in exactly the order of epoch {before}.",
        "A fixed order teaches the order: gradients repeat in the same cycle, and the end of the list weighs most.",
        "Shuffle anew each epoch: the permutation must depend on seed and epoch.",
    ),
    "B3.not-shuffled": (
        "The first {rows} rows are read in the order in which they were stored.",
        "Neighbors in a file are alike, so each step sees one topic only, and the loss swings with the file.",
        "Shuffle the rows (the default of Quinze's own batches).",
    ),
    "B4.validation-differs": (
        "The validation text uses tokens so differently that the training text's frequencies cost {excess:.2f} nats a"
        " token more there than its own.",
        "A validation loss on other text tells little of how well this one is learned.",
        "Split one shuffled collection, or take a validation set of the same kind.",
    ),
    "B5.epochs": (
        "The run reads its {tokens:,} tokens {epochs:.1f} times.",
        "Up to about four readings are nearly as good as new text; later ones mostly teach by heart.",
        "Add text, take a smaller model or a shorter run, or watch the validation loss and stop at its best.",
    ),
    "B5.few-tokens": (
        "The run reads {tokens:,} tokens for {parameters:,} multiplied weights: {ratio:.2f} for each.",
        "Small models are best at about ten; far below one most weights hardly leave their starting place.",
        "A smaller model will end lower in the same time: `quinze plan --tokens {tokens}`.",
    ),
    "B5.disk": (
        "{free:.1f} GB of disk are free; the checkpoints of this run will take {needed:.1f} GB.",
        "A full disk ends the run, and the last checkpoint cannot be written.",
        "Free some space, choose another folder, or keep fewer checkpoints.",
    ),
    "B5.short": (
        "The run has only {steps:,} optimizer steps.",
        "Below some two hundred steps an optimizer has hardly found its way; more and smaller steps learn more.",
        "Take smaller batches: {batch:,} tokens a step give 400 steps.",
    ),
    "B6.schedule": (
        "Warm-up ({warmup:.0%}) and decay ({decay:.0%}) together are longer than the run.",
        "The learning rate would begin to fall before it has risen, and never reach its peak.",
        "Shorten one of them: together they may take 100%.",
    ),
    "B6.no-decay": (
        "The learning rate ends at {final:.0%} of its peak.",
        "The last part of the decay is where the loss falls most; ending high gives it away.",
        "Let it fall to 5% or less of its peak.",
    ),
    "B6.rate-high": (
        "The learning rate of {group} is {rate:.2g}; for width {width} up to about {limit:.2g} is usual.",
        "Steps that are too large throw the weights about instead of improving them; the loss rises or stays.",
        "Begin with a learning rate of {suggested:.1g}.",
    ),
    "B6.rate-low": (
        "The learning rate of {group} is {rate:.2g}; for width {width} {limit:.2g} and more is usual.",
        "The run would end long before the model has learned what it could.",
        "Begin with a learning rate of {suggested:.1g}.",
    ),
    "B7.not-quantizable": (
        "Rows of {sizes} weights ({names}) are no multiple of 32.",
        "Every small format of GGUF stores weights in blocks of 32; such rows would stay in 16 bits.",
        "Choose sizes that are multiples of 32, better of 256.",
    ),
    "B7.no-k-quants": (
        "Rows of {sizes} weights ({names}) are no multiple of 256.",
        "The K formats (q4_k_m, q6_k) need blocks of 256; q8_0, q5_0 and q4_0 will do.",
        "Choose sizes that are multiples of 256 if you want K formats.",
    ),
    "B8.no-labels": (
        "Not one of the {tokens:,} tokens looked at is learned: every label is masked.",
        "The loss will be 0 or NaN from the first step, and nothing is trained.",
        "Check the chat template and the roles: the assistant's turns must be found; see the preview.",
    ),
    "B8.few-labels": (
        "Only {share:.1%} of the tokens are learned; the rest is masked or padding.",
        "Nearly all of the time is spent on tokens that teach nothing.",
        "Pack rows, shorten prompts, or check which turns are learned in the preview.",
    ),
    "B8.empty-rows": (
        "In {share:.0%} of the rows no token is learned.",
        "They cost as much as the others and teach nothing; often the answer was cut off by the row's length.",
        "Lengthen the rows, or drop those examples when the data is prepared.",
    ),
    "B8.pad-is-eos": (
        "Padding and end of text are the same token ({token}), and it is masked wherever it stands: {rows:,} rows, no"
        " end is learned.",
        "The model will never learn to stop: its answers go on until they are cut.",
        "Pad with another token, or mask by position and not by token.",
    ),
    "B8.no-eos": (
        "No answer ends with the end token ({token}) among {labels:,} learned tokens.",
        "The model will never learn to stop: its answers go on until they are cut.",
        "Let each learned turn end with the end token, and learn that token too.",
    ),
    "B8.learns-padding": (
        "{share:.0%} of the learned tokens are padding ({token}, repeated).",
        "The model learns to write padding, and the loss looks better than it is.",
        "Mask the labels of padding, or pack the rows.",
    ),
    "B8.bos-twice": (
        "In {share:.0%} of the rows the begin token ({token}) stands twice in a row.",
        "The template writes one and the tokenizer adds another; later use has one, so the model meets something new.",
        "Switch one of the two off.",
    ),
    "B8.truncated": (
        "{share:.0%} of the rows are cut off in the middle of a learned answer.",
        "Those answers never reach their end, so the model learns less well to stop.",
        "Lengthen the rows (now {length} tokens), or drop examples that do not fit.",
    ),
    "B8.shift": (
        "Only {share:.0%} of the labels are the token that follows; {same:.0%} are the token itself.",
        "Labels must be shifted by exactly one place; otherwise the model learns to copy, or to guess too far ahead.",
        "Give rows as `Row` says: labels[t] is what follows ids[t].",
    ),
    "B9.not-finite": (
        "{tensor} has values that are no numbers before the first step.",
        "Everything computed with it becomes NaN.",
        "The file of the base model is damaged, or an initialization went wrong: take another copy.",
    ),
    "B9.loss-not-finite": (
        "The loss of the first batch is {loss}, before anything was learned.",
        "No gradient can be computed from it. The first place where it goes wrong: {place}.",
        "Check that part of the model, and the batch's labels.",
    ),
    "B9.frozen": (
        "{count} of {total} weights cannot be trained ({names}).",
        "They stay as they began, which is random: a model is trained whole, or with adapters on a trained base.",
        "Set requires_grad on them, or begin from a base model.",
    ),
    "B9.not-optimized": (
        "{count} of {total} trainable weights are in no group of the optimizer ({names}).",
        "They get gradients and never move.",
        "Give every trainable weight to the optimizer.",
    ),
    "B9.no-gradient": (
        "{count} of {total} trainable weights get no gradient ({names}).",
        "They do not take part in the loss: cut off by detach(), skipped, or not connected.",
        "Check how the forward pass uses them.",
    ),
    "B9.initial-loss-high": (
        "Before the first step the loss is {loss:.2f}; a model that knows nothing has {uniform:.2f} (the logarithm of"
        " the vocabulary).",
        "It is certain of wrong answers: weights begin too large, or a loaded file does not fit.",
        "Begin with smaller weights (standard deviation 0.02), or check what was loaded.",
    ),
    "B9.initial-loss-low": (
        "Before the first step the loss is {loss:.2f}, less than the {uniform:.2f} of a model that knows nothing.",
        "An untrained model cannot know more: the answer is in its input, or labels are wrong.",
        "Check that labels are shifted once and that attention looks only back.",
    ),
    "B9.base-knows-nothing": (
        "The base model's loss on this text is {loss:.2f}; a table of frequencies has {unigram:.2f}.",
        "A trained model that does worse than frequencies was made with another tokenizer, or its weights were not"
        " loaded.",
        "Use the tokenizer that belongs to the base model, and check the list of missing weights.",
    ),
    "B9.adapter-not-neutral": (
        "{count} adapters change the base before they have learned anything ({names}).",
        "Training would begin from a damaged base.",
        "lora_B must begin with zeros.",
    ),
    "B9.batch-split": (
        "The loss of {rows} rows together is {together:.4f}, one by one {alone:.4f}.",
        "Rows disturb each other or are weighed wrongly: gradient accumulation will not equal the large batch.",
        "Divide by the number of learned tokens of all micro-batches together.",
    ),
    "B9.sees-ahead": (
        "Other tokens later in the row change the loss of earlier ones ({before:.4f} becomes {after:.4f}).",
        "The model can look at the answer: its loss will be wonderful and its texts useless.",
        "Check the causal mask.",
    ),
    "B9.sees-other-document": (
        "Other tokens in one document of a packed row change the loss of the next ({before:.4f} becomes"
        " {after:.4f}).",
        "Examples that were packed together disturb each other.",
        "Attention must heed the segments of the batch.",
    ),
    "B10.cannot-memorize": (
        "After {steps} steps on one small batch its loss is {after:.2f}, from {before:.2f}.",
        "Any healthy model learns a few rows by heart quickly; this one is not able to learn.",
        "Look at the findings about gradients first; then at the labels.",
    ),
    "B11.missing-weights": (
        "{count} weights of the model were not in the file ({names}).",
        "They are random now, and the model is not the one you chose.",
        "Take the whole model, or correct its config.json.",
    ),
    "B11.unexpected-weights": (
        "{count} weights of the file have no place in the model ({names}).",
        "What they knew is lost.",
        "Check that config.json belongs to the file.",
    ),
    "B11.ids-outside": (
        "The data has token {largest:,}; the model knows {vocab_size:,} tokens.",
        "The data was made with another tokenizer.",
        "Prepare the data with this model's tokenizer, or give the model the right vocab_size.",
    ),
    "B11.vocabulary-differs": (
        "The tokenizer has {tokenizer:,} tokens and the model {vocab_size:,}.",
        "A few spare rows do no harm; many cost memory and time.",
        "Set vocab_size to the tokenizer's, rounded up to a multiple of 32.",
    ),
}

DURING = {
    "D1.non-finite": (
        "At step {at} the loss is {loss} and the gradient's size {norm}: not a number; the step was left out. First seen"
        " in {place}.",
        "One such step makes every weight useless; it was caught before the weights moved.",
        "If it comes again: a lower learning rate, gradient clipping, or a look at rows {rows}.",
    ),
    "D1.non-finite-again": (
        "{count} steps in a row had a loss or gradient that is no number. First seen in {place}.",
        "The model no longer computes; going on would waste the time.",
        "Go back to the last checkpoint with half the learning rate.",
    ),
    "D1.zero-loss": (
        "The loss is exactly 0 for {count} steps.",
        "Nothing is learned: all labels are masked, or a NaN was hidden behind a zero.",
        "Look at the labels in the preview.",
    ),
    "D2.spike": (
        "At step {at} the loss jumped to {loss:.2f}, from a usual {median:.2f}.",
        "A single jump is often one odd batch; the model recovers.",
        "Look at rows {rows} if it comes again.",
    ),
    "D2.spikes": (
        "The loss jumped {count} times within 50 steps, last at step {at} to {loss:.2f} from {median:.2f}.",
        "Jumps that gather announce a run that falls apart.",
        "Half the learning rate, or gradient clipping at 1.",
    ),
    "D2.diverging": (
        "At step {at} the loss is {loss:.2f}; it was {best:.2f} before, and blind guessing gives {uniform:.2f}. Each"
        " step changes the weights by {ratio:.1%}.",
        "The run moves away from its goal. The usual cause is a learning rate that is too high.",
        "Go back to the best checkpoint with a third of the learning rate, or a longer warm-up.",
    ),
    "D3.only-frequencies": (
        "At {progress:.0%} of the run the loss is {loss:.2f}; knowing only how frequent each token is gives"
        " {unigram:.2f}.",
        "The model has not learned yet that tokens follow each other.",
        "If it stays so: check the findings from before the run; then try three times the learning rate, or more"
        " warm-up.",
    ),
    "D3.rate-too-high": (
        "At {progress:.0%} of the run the loss is {loss:.2f}, where a simple table gets {floor:.2f}; each step"
        " changes the weights by {ratio:.1%}.",
        "Steps this large keep the model from settling: the learning rate is too high.",
        "Begin anew with a tenth of the learning rate.",
    ),
    "D3.below-bigram": (
        "At {progress:.0%} of the run the loss is {loss:.2f}; a table of which token follows which gets {bigram:.2f}.",
        "The model has learned less than counting pairs would.",
        "A smaller model or a longer run; if the curve is flat, a higher learning rate.",
    ),
    "D4.too-good": (
        "At step {at} the loss is {loss:.2f}, where a table of triples gets {trigram:.2f}.",
        "No text is so predictable: the answer is in the input, or the same rows come again and again.",
        "Check masks, shift and duplicates (the findings from before the run).",
    ),
    "D4.forecast": (
        "If the curve goes on as it has, the loss will end at {end:.2f} (between {low:.2f} and {high:.2f}).",
        "Fitted to the run so far; the fall of the learning rate usually gives somewhat more.",
        "",
    ),
    "D5.plateau": (
        "The loss has fallen by only {gain:.1%} over the last {steps:,} steps.",
        "At this learning rate there is little more to gain.",
        "Let the learning rate fall now: the decay gains most of what is left.",
    ),
    "D6.overfitting": (
        "The validation loss rises: {best:.3f} at step {best_step}, {now:.3f} now, while the training loss fell to"
        " {train:.3f}.",
        "The model begins to learn its training text by heart.",
        "Stop and keep step {best_step}; for more, add text or use a smaller model or fewer epochs.",
    ),
    "D7.frozen": (
        "The weights of {group} have not moved in the last {steps} steps.",
        "They are not in the optimizer, get no gradient, or their learning rate is 0.",
        "Check requires_grad, the groups of the optimizer and their rates.",
    ),
    "D7.large-updates": (
        "Each step changes the weights of {group} by {ratio:.0%}.",
        "Usual is a thousandth to a hundredth; so large a share forgets what was learned.",
        "Lower the learning rate of {group}.",
    ),
    "D8.dead-units": (
        "{share:.0%} of the units of {layer} are never active.",
        "They take time and memory and have no effect.",
        "A lower learning rate or a longer warm-up; units rarely wake up again.",
    ),
    "D9.logits": (
        "The largest output is {largest:.0f} ({usual:.0f} at the start).",
        "Outputs that grow without end make the loss brittle, and NaN in half precision.",
        "Add a z-loss or weight decay on the output layer, or lower its learning rate.",
    ),
    "D10.starving": (
        "{share:.0%} of each step is spent waiting for data.",
        "The processor is idle in the meantime: the run could be {factor:.1f} times as fast.",
        "Prepare the data into shards beforehand, or read it from a faster disk.",
    ),
    "D10.slower": (
        "Now {now:,.0f} tokens a second; it was {warm:,.0f} when warm.",
        "The machine is hot, out of memory, or doing something else.",
        "Look at what else is running and at the memory in use.",
    ),
    "D11.repeats": (
        "In the sample of step {at}, {share:.0%} of the passages of four words repeat earlier ones.",
        "Early in a run that is usual; later it means that the model is too small, undertrained, or sampled too"
        " coldly.",
        "Sample with a temperature of 0.8 before judging.",
    ),
    "D12.both-falling": (
        "The log-probability of chosen answers fell from {first:.1f} to {now:.1f}, together with the rejected ones.",
        "The margin grows while the model forgets the good answers too.",
        "A larger beta, a lower learning rate, or an SFT term beside the preference loss.",
    ),
    "D12.nothing-trained": (
        "After {steps} steps the preference loss is still {loss:.4f} (ln 2 = 0.6931).",
        "The policy equals its reference: nothing is trained.",
        "Check that weights are trainable and that the reference is a frozen copy.",
    ),
    "D12.too-easy": (
        "{accuracy:.0%} of the pairs are ranked rightly after only {steps} steps.",
        "Chosen and rejected answers can be told apart by something trivial: length, a phrase, the end token.",
        "Compare their lengths and first words; mix in harder pairs.",
    ),
    "D13.replayed": (
        "{share:.0%} of the rows of the last steps had already been read in epoch {epoch}.",
        "After an interruption the run reads again what it knows: the loss looks better than it is.",
        "Resume with the step number; rows must follow from it alone.",
    ),
}

AFTER = {
    "A3.noise": (
        "The final validation loss is {loss:.4f}, give or take {error:.4f} ({batches} batches).",
        "Two runs that differ by less than that are equal as far as this validation set can tell.",
        "",
    ),
    "A4.memorized": (
        "On rows that it learned from the model has {train:.3f}, on others {validation:.3f}: {gap:.2f} nats less.",
        "So large a gap means passages learned by heart; it may repeat them word for word.",
        "Take an earlier checkpoint if the texts are private.",
    ),
    "A6.cost": (
        "{tokens:,} tokens in {minutes:.1f} minutes, {speed:,.0f} a second; it ended at {loss:.3f}, where a"
        " table of triples has {trigram:.3f}.",
        "Kept so that the next forecast is better.",
        "",
    ),
}

ENGLISH: dict[str, tuple[str, str, str]] = BEFORE | DURING | AFTER
