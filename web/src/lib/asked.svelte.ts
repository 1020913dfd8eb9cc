// Questions asked of a knowledge base since the page was opened, with their answers as they grow.

import { api, asApiError, isAbort, type Answer, type ApiError, type Searched } from './api'
import { answerBlocks, MarkdownStream, type Block } from './markdown'

export class Asked {
  question: string
  model: string | null
  searched = $state.raw<Searched | null>(null)
  answer = $state.raw<Answer | null>(null)
  blocks = $state.raw<Block[]>([])
  error = $state.raw<ApiError | null>(null)
  running = $state(true)
  stopped = $state(false)
  private abort = new AbortController()

  constructor(readonly knowledgeBase: string, question: string, model: string | null) {
    this.question = question
    this.model = model
    void this.run()
  }

  stop() {
    this.abort.abort()
  }

  private async run() {
    const stream = new MarkdownStream()
    const request = { knowledge_base: this.knowledgeBase, question: this.question, model: this.model }
    try {
      for await (const news of api.ask(request, this.abort.signal)) {
        if (news.type === 'searched') this.searched = news.searched
        else if (news.type === 'delta') {
          stream.push(news.text)
          this.blocks = stream.blocks
        } else {
          this.answer = news.answer
          this.searched = news.answer.searched
          this.blocks = answerBlocks(news.answer.kind, news.answer.answer)
        }
      }
    } catch (error) {
      if (isAbort(error)) this.stopped = true
      else this.error = asApiError(error)
    }
    this.running = false
  }
}

class History {
  private byBase = $state<Record<string, Asked[]>>({})

  of(knowledgeBase: string): Asked[] {
    return this.byBase[knowledgeBase] ?? []
  }

  ask(knowledgeBase: string, question: string, model: string | null) {
    this.byBase[knowledgeBase] = [new Asked(knowledgeBase, question, model), ...this.of(knowledgeBase)]
  }

  forget(knowledgeBase: string, asked: Asked) {
    asked.stop()
    this.byBase[knowledgeBase] = this.of(knowledgeBase).filter((other) => other !== asked)
  }
}

export const asked = new History()
