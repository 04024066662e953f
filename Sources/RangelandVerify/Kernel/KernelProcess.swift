// SPDX-License-Identifier: Apache-2.0
//
// The kernel's side: the helper process, started and asked.
//
// Guarantee: a helper that dies or hangs is an error with a reason, never a wait without end; it ends when this
//   object or this process ends.
// Mechanism: shared memory and futexes (KernelProtocol.h). Every wait is bounded and looks whether the
//   process still lives. What is started is a template, in which nothing is mapped; scripts run in copies of it. A new
//   process takes some milliseconds, a new copy some tenths of one.

import CKernelProtocol
import Glibc
import SystemPackage

/// The running kernel, behind a process whose mappings are a script's alone, and the copies that the script makes of
/// it. For one thread at a time.
public final class KernelProcess {
  private let channels: UnsafeMutablePointer<kp_channel>
  private let template: pid_t
  /// The template as `current`: its channel is the first.
  private static let ofTemplate = -1
  /// Which member is asked: 0 is the template's copy, others are copies of members.
  var current = KernelProcess.ofTemplate
  private var isAlive = true
  /// Whether something was sealed, which nothing but the end of the members undoes.
  var hasSeals = false
  /// A descriptor of the process that was asked to end, from before the request until it has ended.
  var ending: Int32 = -1
  /// Mappings outside the windows, known after the first reset.
  var outside: Int64?
  private var baselines = [VerifySizes](repeating: VerifySizes(), count: Int(KP_MEMBERS))
  /// Members that have been made and not ended.
  private var copies: Set<Int> = []
  /// The files of the scripts, of both sides.
  let files: VerifyFiles

  var channel: UnsafeMutablePointer<kp_channel> { channels + (1 + current) }
  var process: pid_t { channel.pointee.process }
  /// Sizes of a process without mappings in the windows.
  var baseline: VerifySizes {
    get { baselines[current] }
    set { baselines[current] = newValue }
  }

  /// Pages outside the windows that are locked when all is; 0 = that is never allowed.
  private(set) var lockableOutside = 0
  /// What counts as data of the break before it reaches its window, beyond the data outside the windows, in bytes.
  private(set) var heapBefore: UInt64 = 0

  /// The windows, by `VerifyWindow.rawValue`.
  public private(set) var windows: [AddressPair]

  public struct AddressPair: Sendable, Hashable {
    public var start: UInt64
    public var end: UInt64
  }

  /// Starts a helper.
  ///
  /// - Throws: when there is none, or it cannot run here: `PROCMAP_QUERY` needs Linux 6.11.
  public init() throws(VerifyError) {
    files = try VerifyFiles()
    (channels, template) = try Self.start(files)
    windows = []
    try setUp()
  }

  /// Ends all members and makes the first one anew.
  func restart() throws(VerifyError) {
    try endCopies(all: true)
    current = Self.ofTemplate
    try makeFirst()
    (current, hasSeals) = (0, false)
    copies.insert(0)
    try reset()
  }

  private static func start(
    _ files: VerifyFiles
  ) throws(VerifyError) -> (UnsafeMutablePointer<kp_channel>, pid_t) {
    let path = try helperPath()
    let descriptor = kp_make_channel()
    if descriptor < 0 { throw VerifyError("memfd_create: \(Errno(rawValue: -descriptor))") }
    let memory = mmap(
      nil, Self.channelBytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
    guard let memory, memory != MAP_FAILED else {
      close(descriptor)
      throw VerifyError("the channel cannot be mapped: \(Errno(rawValue: errno))")
    }
    let channels = memory.assumingMemoryBound(to: kp_channel.self)
    let given = Self.copies([(descriptor, channelInHelper)] + files.inherited)
    defer { for one in given { close(one.from) } }
    var child: pid_t = 0
    let status = path.withPlatformString { path in
      "\(channelInHelper)".withPlatformString { number in
        "\(getpid())".withPlatformString { parent in
          var arguments = [path, number, parent].map { UnsafeMutablePointer(mutating: $0) } + [nil]
          var environment: [UnsafeMutablePointer<CChar>?] = [nil]
          var actions = posix_spawn_file_actions_t()
          posix_spawn_file_actions_init(&actions)
          defer { posix_spawn_file_actions_destroy(&actions) }
          for one in given { posix_spawn_file_actions_adddup2(&actions, one.from, one.to) }
          return posix_spawn(&child, path, &actions, nil, &arguments, &environment)
        }
      }
    }
    close(descriptor)
    guard status == 0 else {
      munmap(memory, Self.channelBytes)
      throw VerifyError("\(path) cannot be started: \(Errno(rawValue: status))")
    }
    return (channels, child)
  }

  /// The number of the channel's descriptor in the helper. Those of the files come behind it.
  private static var channelInHelper: Int32 { VerifyFiles.firstInherited - 1 }

  /// Descriptors for the same files whose numbers are none that the helper gets them under: there one may be taken before
  /// another is given. A process with much open has such numbers in use.
  private static func copies(_ descriptors: [(from: Int32, to: Int32)]) -> [(
    from: Int32, to: Int32
  )] {
    let beyond = (descriptors.map(\.to).max() ?? 0) + 1
    // One that cannot be copied is told when the helper starts.
    return descriptors.map { (fcntl($0.from, F_DUPFD_CLOEXEC, beyond), $0.to) }
  }

  private func setUp() throws(VerifyError) {
    var tries = 0
    while kp_wait(
      &channels.pointee.state, &channels.pointee.state_sleepers, UInt32(KP_STARTING), 100)
      == UInt32(KP_STARTING)
    {
      tries += 1
      if tries > 300 || Self.hasEnded(template) { break }
    }
    windows = withUnsafeBytes(of: &channels.pointee.windows) {
      $0.bindMemory(to: kp_window.self).map { AddressPair(start: $0.start, end: $0.end) }
    }
    guard channel.pointee.state == UInt32(KP_READY) else {
      let message = withUnsafeBytes(of: &channel.pointee.message) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      end()
      throw VerifyError(
        "the kernel helper cannot run here: \(message.isEmpty ? "it ended" : message)")
    }
    try restart()
    heapBefore = try lengthOfHeap() - UInt64(baseline.data) * 4096
    lockableOutside = channel.pointee.may_lock != 0 ? try lockEverything() : 0
  }

  deinit { end() }

  /// Whether this kernel is too old to be the judge. A helper that is broken otherwise is no reason to skip.
  public static let lacksQuery: Bool = {
    do throws(VerifyError) {
      _ = try KernelProcess()
      return false
    } catch {
      return error.description.contains("PROCMAP_QUERY")
    }
  }()

  /// Ends the helper; again does nothing.
  private func end() {
    guard isAlive else { return }
    isAlive = false
    for copy in copies { kill(channels[1 + copy].process, SIGKILL) }
    kill(template, SIGKILL)
    var status: Int32 = 0
    while waitpid(template, &status, 0) < 0 && errno == EINTR {}
    munmap(channels, Self.channelBytes)
  }

  private static var channelBytes: Int { Int(KP_PROCESSES) * MemoryLayout<kp_channel>.stride }

  /// Whether the process that is asked has ended.
  var hasEnded: Bool {
    current == Self.ofTemplate ? Self.hasEnded(template) : kill(process, 0) != 0
  }

  /// The current process has made a copy: what it had without mappings, the copy has, but for locked memory.
  func noteCopy(_ copy: Int) {
    copies.insert(copy)
    baselines[copy] = baseline
    baselines[copy].locked = 0
  }

  func noteEnd(_ copy: Int) { copies.remove(copy) }

  /// Ends all members but the first one.
  ///
  /// - Parameter all: that one too.
  func endCopies(all: Bool = false) throws(VerifyError) {
    for copy in copies.sorted() where all || copy != 0 {
      current = copy
      try endCurrent()
      noteEnd(copy)
    }
    current = 0
  }

  static func hasEnded(_ process: pid_t) -> Bool {
    var information = siginfo_t()
    return waitid(P_PID, id_t(process), &information, WEXITED | WNOHANG | WNOWAIT) == 0
      && information.si_signo == SIGCHLD
  }

  /// Beside the executable, where SwiftPM builds it.
  private static func helperPath() throws(VerifyError) -> FilePath {
    var status: Int32 = 0
    let path = withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) {
      $0.initialize(repeating: 0)
      status = kp_helper_path($0.baseAddress, $0.count)
      return FilePath(platformString: $0.baseAddress!)
    }
    guard status == 0 else {
      throw VerifyError(
        "there is no \(path): the helper is built with the package and stays beside the program")
    }
    return path
  }

  /// The kernel's release.
  public static let release: String = {
    var name = utsname()
    uname(&name)
    return withUnsafeBytes(of: &name.release) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
  }()

  /// Whether `RssAnon` is exact: kernels before 6.17 tell a sum that lags behind.
  static let tellsExactResidency: Bool = {
    let numbers = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
    return numbers.count == 2 && (numbers[0], numbers[1]) >= (6, 17)
  }()
}
