// SPDX-License-Identifier: Apache-2.0
//
// One script on both sides, compared.

import Rangeland

/// Where the two sides came apart.
public struct VerifyDifference: Sendable, Hashable {
  /// Index of the call after which they were seen to differ.
  public var index: Int
  /// What differs: `result`, `mappings near the call`, `all mappings`, `flags`, `residency`, `contents`, `sizes`, `leftover`.
  public var what: String
  public var kernel: String
  public var subject: String
}

/// What became of one script.
struct ScriptRun {
  var calls: [VerifyCall] = []
  var succeeded = 0
  var difference: VerifyDifference?
  var coverage = Coverage()
  /// Whether a page of shared memory may have left memory.
  var hasPagedOut = false
  /// Pages were guarded, and since then a mapping was left behind by a move.
  var hasGuards = false
  var leftGuarded = false
  /// What both sides answered, and the state at the end, if the script is one of several threads.
  var answers: [RecordedAnswer] = []
  /// A call whose answer other threads can change: the script ends before it, and says nothing.
  var undetermined: VerifyCall?
  var final: RecordedState?
  /// By index in `Departure.all`.
  var departures: [Int: Int] = [:]
}

/// Runs scripts on the kernel and on subjects.
final class Judge {
  let kernel: KernelProcess
  let makeSubject: () throws(VerifyError) -> any VerifySubject
  /// Where departures are tried.
  private let aside: AddressSpace
  private typealias Pair = KernelProcess.AddressPair

  init(
    _ kernel: KernelProcess, aside: AddressSpace,
    makeSubject: @escaping () throws(VerifyError) -> any VerifySubject
  ) {
    self.kernel = kernel
    self.aside = aside
    self.makeSubject = makeSubject
  }

  /// Runs calls from an empty state on until `next` has no more or the sides differ.
  ///
  /// - Parameters:
  ///   - interval: calls between two comparisons of everything.
  ///   - parts: the threads' parts; what was answered is recorded if there are any.
  func run(
    interval: Int = 64, parts: ThreadParts? = nil,
    _ next: (SpaceFamily) throws(VerifyError) -> VerifyCall?
  ) throws(VerifyError) -> ScriptRun {
    try kernel.reset()
    let subject = SpaceFamily(try makeSubject())
    var run = ScriptRun()
    while run.difference == nil, let call = try next(subject) {
      let absolute = kernel.windows.resolve(call)
      // What is left of a script may meet other mappings than the script did, or miss a fork.
      if !subject.has(call.space) { continue }
      subject.current = call.space
      if !call.kind.definition.isComparable(absolute, subject) { continue }
      // Which pages that nobody has written to the kernel lets go of depends on where it has mapped them ahead.
      if run.hasPagedOut, call.kind == .mincore, absolute.meets(subject, where: \.isShared) {
        continue
      }
      // Linux copies the pages of what ever had a guard in it, though its identity may be gone (docs/linux.md).
      if run.leftGuarded, call.kind == .fork { continue }
      // Linux marks what ever had a guard, and refuses to remap mappings as one of which some lack the mark (docs/linux.md).
      if run.hasGuards, call.kind == .remapFilePages,
        subject.mappings(absolute.at & ~4095, absolute.at &+ absolute.length).count > 1
      {
        continue
      }
      if call.isGuard { run.hasGuards = true }
      if run.hasGuards, call.kind == .mremap, call.flags & RemapCall.keepsSource != 0 {
        run.leftGuarded = true
      }
      if call.isPageOut, absolute.meets(subject, where: \.isShared) { run.hasPagedOut = true }
      if let parts, !parts.determine(absolute, subject) {
        run.undetermined = call
        break
      }
      run.calls.append(call)
      try perform(call, subject, parts, &run)
      if run.difference == nil, run.calls.count % interval == 0 {
        try compareAll(subject, &run)
      }
    }
    if run.difference == nil { try compareAll(subject, &run) }
    subject.current = 0
    if run.difference == nil, parts != nil {
      run.final = RecordedState(subject, windows: kernel.windows)
    }
    // Seals are for ever, on both sides.
    if kernel.hasSeals {
      try kernel.restart()
      return run
    }
    for member in subject.all where run.difference == nil {
      subject.current = member
      run.difference = leftover(subject, run.calls.count - 1)
    }
    return run
  }

  func run(
    _ calls: [VerifyCall], interval: Int, parts: ThreadParts? = nil
  ) throws(VerifyError) -> ScriptRun {
    var index = 0
    return try run(interval: interval, parts: parts) { (_) throws(VerifyError) in
      guard index < calls.count else { return nil }
      index += 1
      return calls[index - 1]
    }
  }

  private func perform(
    _ call: VerifyCall, _ subject: SpaceFamily, _ parts: ThreadParts?,
    _ run: inout ScriptRun
  ) throws(VerifyError) {
    let call = kernel.windows.resolve(call)
    let definition = call.kind.definition
    let name = definition.coverageName(call)
    for (i, departure) in Departure.all.enumerated() where departure.applies(call) {
      try kernel.begin(call)
      let answer = try kernel.outcome(call)
      run.departures[i, default: 0] += 1
      run.coverage.add(.init(call: name, answer: answer.name(call), before: "-", joined: "-"))
      if answer.result != departure.kernelResult || !departure.holds(call, aside) {
        run.fail("departure \(departure.name)", "\(answer)", "what is listed does not hold")
      }
      return
    }
    // Both at once: the helper has a processor of its own.
    try kernel.begin(call)
    let before = definition.shapedRange(call).flatMap { range in
      kernel.windows.contains(range)
        ? Coverage.shape(subject.mappings(range.start, range.end), range.start, range.end) : nil
    }
    let ours = subject.perform(call)
    let theirs = try kernel.outcome(call)
    let succeeded = theirs.succeeded(call)
    if succeeded { run.succeeded += 1 }
    if ours != theirs {
      run.fail("result", "\(theirs)", "\(ours)")
      return
    }
    var joined = "-"
    var expected: [VerifyMapping] = []
    let near = kernel.near(call, theirs)
    if !near.isEmpty {
      expected = kernel.listed
      let got = near.flatMap { subject.mappings($0.start, $0.end) }
      if expected != got {
        run.fail("mappings near the call", list(expected), list(got))
        return
      }
      if succeeded, let changed = definition.changedRange(call, theirs) {
        joined = Coverage.joined(expected, changed.start, changed.end)
      }
    }
    if let parts {
      run.answers.append(parts.record(run.calls.count - 1, call, theirs, near, expected))
    }
    run.coverage.add(
      .init(call: name, answer: theirs.name(call), before: before ?? "-", joined: joined))
  }

  // MARK: comparing everything

  private func compareAll(
    _ subject: SpaceFamily, _ run: inout ScriptRun
  ) throws(VerifyError) {
    let current = subject.current
    let members = subject.all
    for member in members {
      kernel.current = member
      kernel.beginState()
    }
    // While the helpers look.
    let ours = members.map { member in
      subject.current = member
      return SubjectState(subject, kernel.windows)
    }
    // The files are of all members.
    let files = fileDifference(subject, isWritten: false)
    for (member, ours) in zip(members, ours) {
      (subject.current, kernel.current) = (member, member)
      // All of them answer, also behind a difference.
      let theirs = try kernel.finishState()
      guard run.difference == nil else { continue }
      compareOne(subject, ours, theirs, files, kernel.listedFlags, &run)
    }
    subject.current = current
  }

  /// The space and the process that are chosen.
  private func compareOne(
    _ subject: any VerifySubject, _ ours: SubjectState, _ theirs: [[VerifyMapping]],
    _ differentFiles: (String, String)?, _ flags: [UInt64], _ run: inout ScriptRun
  ) {
    for (expected, got) in zip(theirs, ours.windows) where expected != got.mappings {
      run.fail("all mappings", list(expected), list(got.mappings))
      return
    }
    let mappings = ours.windows.lazy.flatMap(\.mappings)
    for (mapping, expected) in zip(mappings, flags) {
      let got = VerifyFlags.set(subject.flagNames(mapping.start))
      if got == expected { continue }
      run.fail(
        "flags", "\(mapping): \(VerifyFlags.description(expected))", VerifyFlags.description(got))
      return
    }
    var expected = kernel.sizes
    var got = ours.sizes
    expected.mappings = theirs.reduce(0) { $0 + $1.count }
    // Its bounds: what the space itself shows as present, and what the kernel has.
    let shared = SharedResidency(kernel: expected.residentShared, subject: got.residentShared)
    (expected.residentShared, got.residentShared) = (0, 0)
    let files = (kernel: expected.residentFile, subject: got.residentFile)
    (expected.residentFile, got.residentFile) = (0, 0)
    if !KernelProcess.tellsExactResidency {
      (expected.residentAnonymous, got.residentAnonymous) = (0, 0)
    }
    if expected != got {
      run.fail("sizes", "\(expected)", "\(got)")
      return
    }
    // What is counted is what is there. The kernel's figure is no bound: it takes clean pages of files out of processes
    // when it likes, those of the helper's program too, which count in it.
    let present = ours.presentFilePages
    if files.subject != present {
      run.fail(
        "sizes", "RssFile \(files.kernel)", "RssFile \(files.subject), \(present) are present")
      return
    }
    if let difference = differentFiles {
      run.fail("files", difference.0, difference.1)
      return
    }
    var seen = SharedResidency(kernel: 0, subject: 0)
    for (window, ours) in zip(kernel.windows, ours.windows) {
      comparePages(window, ours, subject, &seen, &run)
      if run.difference != nil { return }
    }
    // Files in shared memory count as that, and which of their pages are mapped is each side's matter.
    let hasFiles = theirs.contains { $0.contains { $0.file != 0 } }
    if KernelProcess.tellsExactResidency, !hasFiles, !shared.isPossible(seen) {
      run.fail(
        "sizes", "RssShmem \(shared.kernel) of \(seen.kernel) pages that exist",
        "RssShmem \(shared.subject), but \(seen.subject) pages are present")
    }
  }

  /// Resident pages of shared memory, on both sides.
  private struct SharedResidency {
    var kernel: Int
    var subject: Int

    /// Whether these sizes fit what was seen: pages of the kernel's objects, and pages that the subject shows as
    /// present. The kernel maps what is around a page that is read, so it counts as much or more.
    func isPossible(_ seen: SharedResidency) -> Bool {
      subject == seen.subject && subject <= kernel && kernel <= seen.kernel
    }
  }

  /// Residency of private memory, and what the kernel's resident pages hold, where they may be read.
  private func comparePages(
    _ window: Pair, _ state: SubjectState.Window, _ subject: any VerifySubject,
    _ shared: inout SharedResidency, _ run: inout ScriptRun
  ) {
    var found: VerifyDifference?
    var (kernelShared, subjectShared) = (0, 0)
    let index = run.calls.count - 1
    // Rights come from the mappings, which were compared before.
    var mapping = state.mappings.makeIterator()
    var current = mapping.next()
    var next = 0
    kernel.forEachPage(window) { page, isShared, hash in
      if found != nil { return }
      while let end = current?.end, end <= page { current = mapping.next() }
      while next < state.present.count, state.present[next] < page { next += 1 }
      let isPresent = next < state.present.count && state.present[next] == page
      if isShared {
        if isPresent { subjectShared += 1 }
        if hash != nil { kernelShared += 1 }
      }
      // Of a file the kernel tells what is in its page cache.
      if !isShared, current?.file == 0, isPresent != (hash != nil) {
        found = VerifyDifference(
          index: index, what: "residency", kernel: "\(hex(page)) \(hash != nil)",
          subject: "\(isPresent)")
        return
      }
      guard let hash, let rights = current?.protection, rights != 0 else { return }
      let got = isPresent ? state.hashes[next] : subject.hash(page)
      if got != hash {
        found = VerifyDifference(
          index: index, what: "contents", kernel: "\(hex(page)): hash \(hex(hash))",
          subject: got.map { "hash \(hex($0))" } ?? "not readable")
      }
    }
    shared.kernel += kernelShared
    shared.subject += subjectShared
    run.difference = found
  }

  /// After everything is unmapped nothing is left of a subject's pages.
  func leftover(_ subject: any VerifySubject, _ index: Int) -> VerifyDifference? {
    func differs(_ subject: String) -> VerifyDifference {
      VerifyDifference(index: index, what: "leftover", kernel: "nothing", subject: subject)
    }
    for window in kernel.windows {
      let answer = subject.perform(
        VerifyCall(.munmap, VerifyAddress(nil, window.start), window.end - window.start))
      if answer != .success || !subject.presentPages(window.start, window.end).isEmpty
        || !subject.mappings(window.start, window.end).isEmpty
      {
        return differs("\(answer), or pages or mappings in \(hex(window.start))")
      }
    }
    var sizes = subject.sizes()
    // What lies outside may stay locked.
    sizes.outsideLocks = 0
    if sizes != VerifySizes() { return differs("\(sizes)") }
    guard let difference = fileDifference(subject, isWritten: true) else { return nil }
    return VerifyDifference(
      index: index, what: "files", kernel: difference.0, subject: difference.1)
  }

  /// How the files of the two sides differ.
  private func fileDifference(
    _ subject: any VerifySubject, isWritten: Bool
  ) -> (String, String)? {
    if !kernel.files.isUsed { return nil }
    for file in 0..<VerifyFiles.fileCount {
      let got = subject.contents(file, isWritten: isWritten)
      let expected = VerifyFiles.contents(kernel.files.kernel, file)
      if let difference = VerifyFiles.difference(file, expected, got) { return difference }
    }
    return nil
  }
}

extension ScriptRun {
  fileprivate mutating func fail(_ what: String, _ kernel: String, _ subject: String) {
    difference = VerifyDifference(
      index: calls.count - 1, what: what, kernel: kernel, subject: subject)
  }
}
