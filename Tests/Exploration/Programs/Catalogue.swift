// SPDX-License-Identifier: Apache-2.0
//
// The programs that are explored, and how far.

extension ExploredProgram {
  /// All programs, with a word on what each is about.
  public static let catalogue: [(program: ExploredProgram, about: String)] =
    directory.map { (ExploredProgram($0.0, subject: .directory), $0.1) }
    + wholeLock.map { (ExploredProgram($0.0, subject: .lock), $0.1) }
    + observed.map { (ExploredProgram($0.0, subject: .directory), $0.1) }
    + tasks.map { (ExploredProgram($0.0, subject: .directory), $0.1) }
    + throughput.map { (ExploredProgram($0.0, subject: .throughput), $0.1) }
    + semaphore.map { (ExploredProgram($0.0, subject: .semaphore), $0.1) }
    + circular

  /// A lock that is always in its directory.
  private static let directory = [
    // One level, one granule.
    ("w0 - | w0 -", "writers of one granule"),
    ("w0 - | r0 -", "writer and reader"),
    ("r0 - | r0 -", "readers"),
    ("w0 - | w1 -", "touching ranges of one shard"),
    ("w0 - w0 - | w0 -", "again and again"),
    // One level, several granules.
    ("w1-2 - | w2 -", "two granules and one of them"),
    ("w1-3 - | w2 -", "three granules and one of them"),
    ("w1-3 - | r0-2 -", "three granules and two of them"),
    ("w1-2 - | w2-3 -", "ranges that share a granule and no key"),
    // Levels.
    ("w0 - | w0-4 -", "neighbouring levels"),
    ("w0 - | w0-7 -", "finest and coarsest level"),
    ("w4 - | w0-7 -", "two coarse levels"),
    ("w7 - | w6-7 -", "the last key"),
    ("w0 - | w4 -", "levels without a common key"),
    ("w0 - w0-7 - ; w0 - | w0-7 -", "a wide request that knows what is empty"),
    ("w0-7 - w0 - ; w0 - | w0-7 -", "the same that does not know"),
    ("w0 - w0-7 - ; r0 - | r0-7 - w0-7 -", "facts beside readers"),
    ("w5 - w0-7 - ; w0-7 - | w5 -", "one granule of each of two coarse levels"),
    ("w0-7 - w0 - ; w0 - | w0-7 -", "one granule of the coarsest level and one below"),
    ("w5 - w0-3 - ; w0-3 - | w5 -", "granules of a coarse level, each with one"),
    // Try, deadline, downgrade.
    ("w0? - | w0? -", "tries"),
    ("w0 - | w0? - w0-7? -", "tries on two levels"),
    ("w0? - | r0-7? -", "tries that may meet half-way"),
    ("w0 - | w0! -", "a grant against a deadline"),
    ("w0-7 - | w0! - w0 -", "giving up, then asking again"),
    ("w0 d - | r0 -", "downgrade, a reader waits"),
    ("w0 d - | w0 -", "downgrade, a writer waits"),
    ("w1-2 d - | r2 -", "downgrade in two shards"),
    // Several holds.
    ("w0 w4 - -0 | w0 w4 -0 -", "two ranges in order"),
    ("w0 d w4 - -0 | w4 r0 - -0", "a downgrade that somebody waits for"),
    ("w0-7 - w0-7 - | w4 -", "wide requests one after the other"),
    // Upgrade, shrink, several ranges at once.
    ("u0 p - | r0 -", "an upgrade waits for a reader"),
    ("u0 p - | u0 p -", "two that may upgrade"),
    ("u0 p - | w0-7 -", "an upgrade and a wide writer"),
    ("r0 p? - | r0 p? -", "readers that try to upgrade"),
    ("u1-2 p? d - | r2 -", "an upgrade that may fail, in two shards"),
    ("w0-1 s0 - | w1 -", "shrink in one shard"),
    ("w1-2 s1 - | w2 -", "shrink out of a shard"),
    ("w0-7 s4 - | w0 -", "shrink of a wide hold"),
    ("w0-1 s0 w4 - -0 | w4 w1 - -0", "a shrink that somebody waits for"),
    ("w0+w4 - | w4 -", "two ranges and one of them"),
    ("w0+r4 - | r0+w4 -", "two ranges each, crosswise"),
    ("w0+w4? - | w4 -", "two ranges or none"),
    ("w0 - | w0+w4! -", "two ranges that may give up"),
    ("w4 - ; w0+w4 - | w0-7 -", "two ranges and a wide request"),
    // Several ranges that wait, and upgrades, which stand in front of them.
    ("w0 w4? -0 d - | w0+w4 -", "two ranges behind a hold each"),
    ("w0-1 s0 w4 - -0 | w4 r1+w7 - -0", "a shrink that two ranges wait for"),
    ("w0-7 d - | r2+w7 -", "a downgrade before two ranges"),
    ("u0-7 p - | r2+w7 -", "an upgrade, and two ranges of which one has nobody in front"),
    ("u0-7 p? - | r2+w7 -", "a try to upgrade before two ranges"),
    ("u0-7 p! - | r2+w7 -", "an upgrade that may give up before two ranges"),
    ("u0-7 p - | r2+w7! -", "two ranges that may give up behind an upgrade"),
    ("w2 w7? -0 u2 p -1 p - | r2+w7 -", "an upgrade of a range that was looked at for two"),
    // Upgrades that give up.
    ("u0 p! - | r0 -", "an upgrade that may give up beside a reader"),
    ("u1-2 p! - | r2 -", "the same in two shards"),
    ("u0 p! p - | r0 -", "and one that waits afterwards"),
    ("u0 p! - | w0-7 -", "an upgrade that may give up and a wide writer"),
    // Stripes: the preparation opens them.
    ("r0 r0 - -0 ; r0 - | w0 -", "a stripe and a writer"),
    ("r0 r0 - -0 ; r0 - | r0 - w0 -", "two stripes and a writer"),
    ("r0 r0 - -0 ; r0 - r0 - | w0 - r0 -", "stripes closed and not opened again"),
    ("r0 r0 - -0 ; r1 - | w1 -", "another range than that of the stripes"),
    ("r0 r0 - -0 ; r0 - | w0? -", "a try that finds nobody in the stripes, or somebody"),
    ("r0 r0 - -0 ; r0 - | w0! -", "a deadline beside stripes"),
    ("r0 r0 - -0 ; r0 - | w0-7 -", "a wide writer and stripes"),
    ("r0 r0 - -0 ; r0 p? - | w0 -", "an upgrade out of a stripe"),
    ("r0 r0 - -0 ; r0 - | u0 p -", "an upgrade beside stripes"),
    ("r0-1 r0-1 - -0 ; r0-1 s0 - | w1 -", "a shrink out of a stripe"),
    ("r0 - r0 - | r0 - r0 -", "readers that open stripes"),
    // Three threads.
    ("w0 - | w0 - | w0 -", "three writers"),
    ("r0 r0 - -0 ; r0 - | r0 - | w0 -", "two stripes and a writer at once"),
    ("r0 r0 - -0 ; r0 - | w0 - | w0 -", "a stripe and two writers"),
    ("w0 - | r0 - | w0 -", "a reader between writers"),
    ("w0 - | r0 - | r0 -", "two readers behind a writer"),
    ("r0 - | w0 - | r0 -", "a reader behind a waiting writer"),
    ("r4 - | w4 - | r4? -", "a try behind a waiting writer"),
    ("w1 - | w1-2 - | w2 -", "a chain over two shards"),
    ("w0 - | w0-4 - | w0-7 -", "three levels"),
    ("r0 - | w0-7 - | r0 -", "wide writer between narrow readers"),
    ("r0-7 - | r4-5 - | r4 -", "readers on three levels"),
    ("w0 - | w0! - | r0 -", "a reader behind a writer that gives up"),
    ("w0 - | w0! - | w0 -", "a writer behind one that gives up"),
    ("w0 - | w0-7! - | w0? -", "a try behind a wide request that gives up"),
    ("w0 d - | r0 - | w0 -", "downgrade with both behind it"),
    ("r0 - | r0 - | w0 -", "a writer behind two readers"),
    ("r0-7 - | r0-7 - | w0 -", "a writer behind two readers of another level"),
    ("w0 - | w4 - | w0-7 -", "a wide writer behind two narrow ones"),
    ("w1-2 - | w2-3 - | w1-3 -", "three that share granules"),
    ("w0 - | r4 - | w0+w4 -", "two ranges behind one each"),
    ("u0 p - | w1 - | r0-1 -", "an upgrade beside a reader that waits for another"),
    ("u0 p! - | w1 - | r0-1 -", "the same that may give up"),
    ("u0 p! - | r0 - | w0 -", "an upgrade that may give up before a writer"),
    ("u0 p! - | r0 - | r0 -", "an upgrade that may give up among readers"),
    ("w0 - | r4 - | w0+w4! -", "two ranges behind one each that may give up"),
    ("w7 - | u2 p - | r2+w7 -", "an upgrade while two ranges are granted"),
    ("u0-3 p - | w3-4 - | r0+w4 -", "two ranges behind a writer that waits for an upgrade"),
    ("u0-7 p - | r2+w7 - | r4+w7 -", "an upgrade before two ranges twice"),
    ("u0-3 p - | u4-7 p - | r0+w4 -", "two upgrades before two ranges"),
    ("w0 w7? - -0 | w2+w7 - | w0-3 -", "one of two ranges and a wide request that comes meanwhile"),
    ("w0-1 d - | r0 - | w1 -", "a downgrade while another looks through the stack of its waiters"),
    ("w0-1 s0 - | w1 - | w0! -", "a shrink beside that"),
  ]

  /// A lock that begins in whole-lock mode.
  private static let wholeLock = [
    ("w0 - | w0 -", "the holder's own range"),
    ("w0 - | w4 -", "another range"),
    ("r0 - | r0 -", "readers"),
    ("w0 - | w0-7 -", "a wide request"),
    ("w0 w4 - -0", "a thread that meets itself"),
    ("w0 w4 - -0 | w4 -", "a holder that waits for who leaves the mode"),
    ("w0 - | w0? -", "a try"),
    ("w0 - | w0! -", "a deadline"),
    ("w0 d - | r0 -", "downgrade while the mode is left"),
    ("w0-1 s0 - | w1 -", "shrink while the mode is left"),
    ("u0 p - | r0 -", "upgrade while the mode is left"),
    ("w0+w4 - | w0 -", "two ranges, which leave the mode"),
    ("w0 w4 - -0 ; w0 - | e w0 -", "the mode is entered while another asks"),
    ("w0 w4 - -0 w0-7 - e ; w0 - | w0-7 -", "a holder that is taken over beside facts"),
    ("w0 w4 - -0 ; w0-7 - | e w0 -", "entered while a wide request asks"),
    ("w5 w0-3 - -0 ; w5 - | e w5 -", "the mode is entered while another asks for a coarse granule"),
    ("u0-7 p - | r2+w7 -", "an upgrade before two ranges, which leave the mode"),
    ("w0 - | w0 - | r0 -", "two that meet a holder"),
    ("w0 w4 - -0 ; w0 - | e | w0 -", "entered and left"),
    ("r0 - | w0 - | r0? -", "a try behind a waiting writer"),
    ("r0 w4 - -0 r0 r0 - -2 ; r0 - | e w0 -", "the mode is entered beside stripes"),
    // Samples: the second of one thread in a row enters the mode.
    ("w0 w4 - -0 ; q w0 - q w0 - | w0 -", "the mode is entered by samples while another asks"),
    ("w0 w4 - -0 ; q w0 - q w0 - | w4 -", "the same in another shard"),
    ("w0 w4 - -0 ; q w0 - q w0 - | q w0 - q w0 -", "two that sample"),
    ("r0 w4 - -0 r0 r0 - -2 ; q r0 - q r0 - | w0 -", "samples of a reader in a stripe"),
    ("w0 w4 - -0 ; q w0 - q w0-7 - | r0 -", "a sample of a wide request"),
    ("u0 p! - | r0 -", "an upgrade that may give up while the mode is left"),
    // Observed locks.
    ("o w0 - | w0 -", "observed while somebody holds"),
    ("w0 - | o O w0 -", "observed for a while"),
    ("w0 w4 - -0 ; o O w0 - | e w0 -", "observed while the mode is entered"),
    ("w0 d - | o r0 -", "observed while a hold is downgraded"),
    ("w0-1 s0 - | o w1 -", "observed while a hold is shrunk"),
    ("o w0 - | w0 - | w0-7 -", "an observed lock and three levels"),
    ("w0 w4 - -0 ; o q w0 - q w0 - | w0 -", "samples of an observed lock"),
  ]

  /// Observed locks in their directory.
  private static let observed = [
    ("o ; w0 - | w0 -", "writers"),
    ("o ; w0 - | w0-7! -", "a deadline"),
    ("o ; w0? - | r0-7? -", "tries"),
    ("o ; w0+w4 - | w4 -", "two ranges"),
    ("o ; u0 p! - | r0 -", "an upgrade that may give up"),
    ("o ; u0-7 p - | r2+w7! -", "an upgrade before two ranges"),
    ("r0 r0 - -0 ; r0 - | o w0 -", "observed while a reader is in a stripe"),
    ("r0 r0 - -0 ; r0 - r0 - | o O", "observed for a while beside stripes"),
    ("o ; w0~ - | w0~ -", "tasks"),
    ("w0 - | w0 - | o O", "observed while one waits"),
  ]

  /// Tasks that wait.
  private static let tasks = [
    ("w0~ - | w0~ -", "two tasks"),
    ("w0 - | w0~ -", "a task behind a thread"),
    ("w0~ - | w0 -", "a thread behind a task"),
    ("w0-7 - | w1-3~ -", "a task with three shards"),
    ("w0 - | w0~ - | x1", "a task that is cancelled"),
    ("w0 - | w0~! - | t", "a task with a deadline"),
    ("w0 - | w0~! - | t x1", "cancelled or too late"),
    ("w0 x1 t - | w0~! -", "cancelled by the holder, then too late"),
    ("w0 t x1 - | w0~! - w4 -", "too late, then cancelled"),
    ("w0 x1 - | w0~ - w4 -", "cancelled by the holder"),
    ("w0 x1 - | w0~ - | r0 -", "a reader behind a task that is cancelled"),
    ("w0 t - | w0~! - | r0 -", "a reader behind a task that is too late"),
    ("w0 x1 - | w0+w4~ -", "two ranges, cancelled"),
    ("w0 t - | w0+w4~! -", "two ranges, too late"),
    ("w0 - | r4 - | w0+w4~ -", "two ranges of a task behind one each"),
    ("u0-7 p~ - | r2+w7~ -", "an upgrade of a task before two ranges of one"),
    ("u0-7 p x1 - | r2+w7~ -", "two ranges that are cancelled behind an upgrade"),
    ("u0-7 p t - | r2+w7~! -", "two ranges that are too late behind an upgrade"),
    ("w2 w7? -0 x2 -1 | r2+w7~ -", "two ranges that are cancelled while they are looked at"),
    ("u0 p~ - | r0 -", "an upgrade of a task"),
    ("u0 p~ - | r0 x0 -", "an upgrade of a task that is cancelled"),
    ("u0 p~! - | r0 t -", "an upgrade of a task that is too late"),
    ("u1-2 p~! - | r2 t x0 -", "the same in two shards, cancelled too"),
  ]

  /// A lock where requests may pass those that wait.
  private static let throughput = [
    ("w0 - | w0 -", "writers"),
    ("w0 - w0 - | w0 -", "a writer that may pass"),
    ("w0 - w0 - w0 - w0 - | w0 -", "one that may not for ever"),
    ("w0 - w0 - | w0! -", "a deadline of one that may be passed"),
    ("w0 - w0? - | w0 -", "a try that may pass"),
    ("w0 - r0 - | w0-7 -", "a wide writer that may be passed"),
    ("w0-7 - w4 - | w0 -", "wide ones that may pass"),
    ("w0 d - | r0 - w0 -", "a downgrade"),
    ("u0 p - | r0 - w0 -", "an upgrade"),
    ("w0-1 s0 - | w1 - w0 -", "a shrink"),
    ("w0+w4 - | w4 - w4 -", "two ranges are not passed"),
    ("u0-7 p - | r2+w7 -", "an upgrade before two ranges"),
    ("w0~ - | w0 - w0 -", "tasks are not passed"),
    ("u0 p! - | r0 - w0 -", "an upgrade that may give up"),
    ("w0 - | w0 - | w0 -", "three writers"),
    ("w0 - | r0 - | w0 -", "a reader between writers"),
    ("w0 - w0 - | w0 - | w0! -", "one that gives up behind another"),
    ("r0 - | w0-7 - | r0 -", "wide writer between narrow readers"),
  ]

  private static let semaphore = [
    ("w0 - | w0 -", "writers"),
    ("w0 - | r0 -", "writer and reader"),
    ("w0 - w0 - | w0 -", "again"),
    ("w0? - | r0? - w0? -", "tries"),
    ("w0 - | w0! -", "a deadline"),
    ("w0 - | r0! -", "a reader's deadline"),
    ("w0 d - | r0 -", "downgrade"),
    ("w0 - | w0 - | w0 -", "three writers"),
    ("w0 - | r0 - | r0 -", "two readers behind a writer"),
    ("r0 - | w0 - | r0 -", "a reader behind a waiting writer"),
    ("r0 - | w0! - | r0 -", "a reader behind a writer that gives up"),
    ("w0 - | r0! - | w0 -", "a reader that gives up between writers"),
    ("w0 d - | w0 - | r0 -", "downgrade with both behind it"),
  ]

  /// Programs that wait for each other in a circle, which a deadline breaks.
  private static let circular = [
    (
      ExploredProgram(
        "w0 w4! -1 -0 | w4 w0! -1 -0", subject: .directory, deadlinesRescue: true),
      "a circle of waiters"
    ),
    (
      ExploredProgram("w0 w4! -1 -0 | w4 w0! -1 -0", subject: .lock, deadlinesRescue: true),
      "a circle of waiters"
    ),
  ]

  /// The number of threads.
  public var threadCount: Int { threads.count }

  /// What is explored with every run of the tests.
  public var quickBounds: [ExplorationBounds] {
    // Long programs have too many schedules with two preemptions for a debug build.
    let few = threadCount > 2 || threads.joined().count > 6 ? 1 : 2
    return [
      ExplorationBounds(.sequential, preemptions: few),
      ExplorationBounds(.storeBuffers, preemptions: few),
      ExplorationBounds(.sequential, preemptions: few - 1, spuriousWakeUps: 1),
    ]
  }

  /// What is explored where there are minutes: with all interleavings where that ends.
  public func deepBounds(executions: Int) -> [ExplorationBounds] {
    if threadCount > 2 {
      return [
        ExplorationBounds(.sequential, preemptions: 2, executions: executions),
        ExplorationBounds(.storeBuffers, preemptions: 2, executions: executions),
        ExplorationBounds(.sequential, memory: .pasts, preemptions: 1),
        ExplorationBounds(.sequential, preemptions: 1, spuriousWakeUps: 1),
      ]
    }
    return [
      ExplorationBounds(.sequential, preemptions: nil, executions: executions),
      ExplorationBounds(.storeBuffers, preemptions: nil, executions: executions),
      // All of it, should the two have met their limit.
      ExplorationBounds(.sequential, preemptions: 3),
      ExplorationBounds(.storeBuffers, preemptions: 3),
      ExplorationBounds(.sequential, memory: .pasts, preemptions: 2),
      ExplorationBounds(.sequential, preemptions: 2, spuriousWakeUps: 1),
    ]
  }
}
