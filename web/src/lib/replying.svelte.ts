// Replies under way: one a conversation. Writes into the conversation as the words arrive, so that leaving the page
// of a conversation does not stop it; `stop` closes the connection, which frees the model at once.

import { api, asApiError, isAbort, type ChatMessage } from './api'
import { chats, emptyReply, newId, type Conversation, type Reply, type Turn } from './chats.svelte'
import { MarkdownStream } from './markdown'

class Replying {
  private aborts = $state.raw<Map<string, AbortController>>(new Map())
  /** The parsed text of the reply that grows, by conversation. */
  streams = $state.raw<Map<string, MarkdownStream['blocks']>>(new Map())

  running(id: string): boolean {
    return this.aborts.has(id)
  }

  stop(id: string) {
    this.aborts.get(id)?.abort()
  }

  /** Adds a question to the conversation and answers it. `chats`: the model knows turns; else it continues the text. */
  async send(conversation: Conversation, question: string, model: string | null, knowsTurns: boolean) {
    conversation.turns.push({ id: newId(), question, replies: [], shown: 0 })
    if (!conversation.title) conversation.title = question.replace(/\s+/g, ' ').slice(0, 60)
    await this.reply(conversation, conversation.turns.at(-1) as Turn, model, knowsTurns)
  }

  async reply(conversation: Conversation, turn: Turn, model: string | null, knowsTurns: boolean) {
    const abort = new AbortController()
    turn.replies.push(emptyReply(model ?? ''))
    turn.shown = turn.replies.length - 1
    const reply = turn.replies[turn.shown] as Reply
    this.aborts = new Map(this.aborts).set(conversation.id, abort)
    chats.save(conversation)
    try {
      if (conversation.knowledgeBase) await this.fromDocuments(conversation, turn, reply, model, abort.signal)
      else await this.fromModel(conversation, turn, reply, model ?? '', knowsTurns, abort.signal)
    } catch (error) {
      if (isAbort(error)) reply.stopped = true
      else {
        const known = asApiError(error)
        reply.error = { message: known.message, hint: known.hint, code: known.code }
      }
    }
    this.aborts = without(this.aborts, conversation.id)
    this.streams = without(this.streams, conversation.id)
    chats.save(conversation)
  }

  private async fromModel(
    conversation: Conversation, turn: Turn, reply: Reply, model: string, knowsTurns: boolean, signal: AbortSignal,
  ) {
    const stream = new MarkdownStream()
    const began = performance.now()
    const temperature = conversation.temperature ?? undefined
    const context_overflow = conversation.overflow ?? undefined
    const request = knowsTurns
      ? { model, temperature, context_overflow, messages: messagesBefore(conversation, turn) }
      : { model, temperature, context_overflow, prompt: turn.question }
    for await (const news of api.chat(request, signal)) {
      if (news.type === 'end') reply.ending = news.ending
      else {
        reply.firstToken ??= (performance.now() - began) / 1000
        this.grow(conversation, reply, stream, news.text)
      }
    }
  }

  private async fromDocuments(
    conversation: Conversation, turn: Turn, reply: Reply, model: string | null, signal: AbortSignal,
  ) {
    const stream = new MarkdownStream()
    const began = performance.now()
    const request = { knowledge_base: conversation.knowledgeBase as string, question: turn.question, model }
    for await (const news of api.ask(request, signal)) {
      if (news.type === 'searched') reply.searched = news.searched
      else if (news.type === 'delta') {
        reply.firstToken ??= (performance.now() - began) / 1000
        this.grow(conversation, reply, stream, news.text)
      } else {
        reply.answer = news.answer
        reply.searched = news.answer.searched
        reply.text = news.answer.answer
      }
    }
  }

  private grow(conversation: Conversation, reply: Reply, stream: MarkdownStream, piece: string) {
    stream.push(piece)
    reply.text = stream.text
    this.streams = new Map(this.streams).set(conversation.id, stream.blocks)
  }
}

function messagesBefore(conversation: Conversation, turn: Turn): ChatMessage[] {
  const messages: ChatMessage[] = conversation.system.trim() ? [{ role: 'system', content: conversation.system }] : []
  for (const earlier of conversation.turns) {
    messages.push({ role: 'user', content: earlier.question })
    if (earlier.id === turn.id) break
    const reply = earlier.replies[earlier.shown]
    if (reply?.text) messages.push({ role: 'assistant', content: reply.text })
    else messages.pop()
  }
  return messages
}

function without<T>(map: Map<string, T>, key: string): Map<string, T> {
  const copy = new Map(map)
  copy.delete(key)
  return copy
}

export const replying = new Replying()
