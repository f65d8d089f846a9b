# Sidekiq: `sidekiq_check.rb PORT` starts workers on this very file, one of them during the outage, and gives them work.

require "timeout"
require "tmpdir"
require "sidekiq"

URL = "redis://127.0.0.1:#{ENV["SIDEKIQ_CHECK_PORT"] || ARGV[0]}/8"
DIR = ENV["SIDEKIQ_CHECK_DIR"] || Dir.mktmpdir
DEADLINE_S = 30

Redis.sadd_returns_boolean = false if Redis.respond_to?(:sadd_returns_boolean=)
Sidekiq.configure_server do |config|
  config.redis = { url: URL }
  # By then it has asked Redis what it is.
  config.on(:startup) { note("started", Process.pid) }
end
Sidekiq.configure_client { |config| config.redis = { url: URL } }
Sidekiq.logger.level = Logger::FATAL

def note(what, line)
  File.open(File.join(DIR, what), "a") { |file| file.write("#{line}\n") }
end

def noted(what)
  File.exist?(File.join(DIR, what)) ? File.readlines(File.join(DIR, what), chomp: true) : []
end

class Note
  include Sidekiq::Worker
  sidekiq_options retry: false

  def perform(name)
    note("done", name)
  end
end

def check(name, got, expected)
  puts(got == expected ? "ok #{name}" : "FAIL #{name}: expected #{expected.inspect}, got #{got.inspect}")
  $stdout.flush
end

def ask(question)
  puts "ask #{question}"
  $stdout.flush
  $stdin.gets
end

def wait_until(what)
  Timeout.timeout(DEADLINE_S, nil, "not within #{DEADLINE_S} s: #{what}") { sleep 0.02 until yield }
end

def worker
  env = { "SIDEKIQ_CHECK_PORT" => ARGV[0], "SIDEKIQ_CHECK_DIR" => DIR }
  command = ["sidekiq", "--require", File.expand_path(__FILE__), "--concurrency", "2", "--timeout", "1"]
  spawn(env, *command, in: File::NULL, out: File::NULL, err: File::NULL)
end

def work(whens, count)
  names = Array.new(count) { |number| "#{whens} #{number}" }
  names.each { |name| Note.perform_async(name) }
  names
end

def main
  workers = []
  Sidekiq.redis { |redis| redis.flushdb }
  workers << worker
  names = work("before", 5)
  wait_until("jobs before the outage") { noted("done").size == names.size }
  ask "down"
  names += work("during", 20)
  Note.perform_in(1, "in a second")
  names << "in a second"
  Note.set(queue: "default").perform_bulk((0...5).map { |number| ["bulk #{number}"] })
  names += Array.new(5) { |number| "bulk #{number}" }
  workers << worker
  wait_until("a worker that starts while down") { noted("started").include?(workers.last.to_s) }
  ask "up"
  wait_until("jobs given while down") { noted("done").size >= names.size }
  names += work("after", 5)
  wait_until("jobs after the outage") { noted("done").size >= names.size }
  check "each job ran once", noted("done").sort, names.sort
  check "both workers live", workers.map { |pid| Process.wait(pid, Process::WNOHANG) }, [nil, nil]
rescue Exception => error
  puts "FAIL uncaught: #{error.full_message(highlight: false).tr("\n", "|")}"
ensure
  workers.each { |pid| Process.kill("TERM", pid) rescue nil }
  workers.each { |pid| Process.wait(pid) rescue nil }
  FileUtils.rm_rf(DIR)
end

main if $PROGRAM_NAME == __FILE__
